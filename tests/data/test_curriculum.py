"""Lengths step by step: as many tokens, every row in its order, batches by their number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.data import BatchLoader, TokenArray
from coterie.data.curriculum import Curriculum, Stages
from coterie.data.ramp import Linear, Stairs
from coterie.foundation.errors import SettingsError

GROWING = Curriculum(length=Linear(first=48, last=88, end=10))
DOUBLING = Curriculum(length=Stairs(values=(16, 32, 16, 64), begins=(0, 2, 5, 6)))
TOKENS = TokenArray([np.arange(5000, dtype=np.uint16)])


def test_lengths_grow_and_a_step_keeps_its_tokens():
    stages = Stages(96, 32, GROWING)
    assert [(s.first, s.context, s.rows) for s in stages.stages] == [
        (0, 48, 64), (2, 56, 54), (4, 64, 48), (6, 72, 42), (8, 80, 38), (10, 88, 34),
    ]  # fmt: skip
    for step in range(12):
        stage = stages.of(step)
        assert stage.context <= 96
        assert 0 <= 32 * 96 - stage.tokens < stage.context
    for steps in (0, 1, 2, 7, 30):
        assert stages.tokens(steps) == sum(stages.of(step).tokens for step in range(steps))
    assert stages.told(3) == (
        "48 from step 0 (64 rows), 56 from step 2 (54 rows); "
        "up to 1.6% fewer tokens than 3,072 a step"
    )
    assert all(stage.rows % 4 == 0 for stage in Stages(96, 32, GROWING, unit=4).stages)
    plain = Stages(96, 5)
    assert [(s.context, s.rows) for s in plain.stages] == [(96, 5)]


def test_powers_of_two_divide_and_lengths_go_on_where_they_were_left():
    stages = Stages(64, 4, DOUBLING)
    assert [(s.context, s.rows, s.before) for s in stages.stages] == [
        (16, 16, 0), (32, 8, 0), (16, 16, 2), (64, 4, 0),
    ]  # fmt: skip
    loader = BatchLoader(TOKENS, 64, 4, seed=1, stages=stages)
    short = BatchLoader(TOKENS, 16, 16, seed=1)
    for step, wanted in ((0, 0), (1, 1), (5, 2)):
        assert torch.equal(loader.batch(step).tokens, short.batch(wanted).tokens)
    forward = [loader.batch(step) for step in range(9)]
    assert [tuple(batch.tokens.shape) for batch in forward] == (
        [(16, 16)] * 2 + [(8, 32)] * 3 + [(16, 16)] + [(4, 64)] * 3
    )
    with BatchLoader(TOKENS, 64, 4, seed=1, stages=stages) as other:
        batches = other.iterate(4)
        for step in range(4, 9):
            assert torch.equal(next(batches).tokens, forward[step].tokens)
    ranks = [BatchLoader(TOKENS, 64, 4, 1, rank=r, world=2, stages=stages) for r in range(2)]
    for step in range(9):
        union = torch.cat([each.batch(step).tokens for each in ranks])
        assert torch.equal(union, forward[step].tokens)


@pytest.mark.parametrize("length", [128.0, 4.0, 0.0])
def test_a_length_that_does_not_fit_is_refused(length):
    with pytest.raises(SettingsError, match="rows of step 3 would have"):
        Stages(96, 4, Curriculum(length=Stairs(values=(8, length), begins=(0, 3))))
