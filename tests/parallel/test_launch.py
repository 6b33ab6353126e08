"""Processes that are started anew do not take the words of those that are gone for each other's."""

from __future__ import annotations

import pytest

from coterie.parallel.launch import _attempt


@pytest.mark.parametrize(("local", "prefix"), [("2", "coterie/3"), ("1", "coterie/0")])
def test_each_start_on_one_machine_has_words_of_its_own(monkeypatch, local, prefix):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    assert _attempt() == prefix
