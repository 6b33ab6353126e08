"""Whoever is lost is named, whether it hangs, was killed or failed and said why."""

from __future__ import annotations

import threading

import pytest
from torch import distributed

from coterie.foundation.errors import SettingsError
from coterie.parallel.health import Health, LostRankError

TIMED_OUT = "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation"


def lost(health: Health, said: str = TIMED_OUT) -> str:
    with pytest.raises(LostRankError) as found, health.told():
        raise RuntimeError(said)
    return found.value.message


def of(store: distributed.Store, rank: int, world: int = 3) -> Health:
    return Health(store, rank, world, seconds=1.0)


def test_the_process_that_neither_waits_nor_ended_is_named_with_its_last_place():
    store = distributed.HashStore()
    of(store, 1).at("step 12")
    waiting = threading.Thread(target=lost, args=[of(store, 2)])
    waiting.start()
    assert lost(of(store, 0)) == (
        "No answer from rank 1 (last at step 12): it hangs, was killed, or its host was lost."
    )
    waiting.join()


def test_a_process_that_failed_says_why_to_the_others():
    store = distributed.HashStore()
    with pytest.raises(SettingsError), of(store, 2).told():
        raise SettingsError("The text is gone.")
    assert lost(of(store, 0), "Connection reset by peer") == "Rank 2 ended: The text is gone."


def test_where_all_answer_nobody_is_blamed():
    store = distributed.HashStore()
    others = [threading.Thread(target=lost, args=[of(store, rank)]) for rank in (1, 2)]
    for each in others:
        each.start()
    assert "though each still answers" in lost(of(store, 0))
    for each in others:
        each.join()


def test_errors_of_other_kinds_stay_what_they_are():
    store = distributed.HashStore()
    with pytest.raises(RuntimeError, match="no room"), of(store, 0).told():
        raise RuntimeError("no room")
    assert "no room" in lost(of(store, 1), "Connection closed by peer")
