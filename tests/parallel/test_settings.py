"""The settings of a layout, and every problem of one at once."""

from __future__ import annotations

import pytest

from coterie.foundation.errors import SettingsError
from coterie.parallel import Parallel

from .runs import settings


def test_replicas_take_what_the_other_sizes_leave():
    assert Parallel(shard=2).sizes(8) == {
        "pipeline": 1, "data": 4, "shard": 2, "context": 1, "tensor": 1
    }  # fmt: skip


def test_sizes_that_are_not_the_number_of_processes_are_refused():
    with pytest.raises(SettingsError, match="data 2 × shard 2 makes 4 processes; there are 3"):
        Parallel(data=2, shard=2).sizes(3)


def test_every_problem_is_told_at_once(source):
    layout = Parallel(shard=3, pipeline=4, expert=2, context=3)
    with pytest.raises(SettingsError) as refused:
        layout.require(36, settings(source).model, {16: 8}, 2)
    told = refused.value.message
    assert "8 rows of 16 tokens in 2 micro-batches cannot be shared by 3 processes" in told
    assert "must be a multiple of 6" in told
    assert "parallel.context=3 does not divide rows of 16 tokens" in told
    assert "parallel.pipeline=4 with schedule=1f1b makes 4 stages, and there are 2 layers" in told
    assert "parallel.expert=2 does not divide" in told
