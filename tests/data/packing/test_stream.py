"""Windows that touch: each token once an epoch, in an order of each epoch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.data import BatchLoader, evaluation_batches
from coterie.data.packing import PADDING, Isolated, Stream, Whole
from coterie.foundation.errors import DataError

LENGTHS = [3, 1, 23, 2, 5, 5, 5, 1, 8, 16, 7, 4, 4, 3]


@pytest.mark.parametrize("kind", [Stream, Isolated])
@pytest.mark.parametrize("context", [1, 4, 7, 200])
def test_an_epoch_reads_every_pair_once_in_its_own_order(split_of, kind, context):
    split = split_of(LENGTHS, shard_tokens=17)
    wanted = torch.cat([b.targets[b.valid] for b in evaluation_batches(split, context, 1, kind())])
    loader = BatchLoader(split, context, 1, seed=1, packing=kind(windows="once"))
    count = -(-(len(split) - 1) // context)
    epochs = []
    for epoch in range(3):
        rows = [loader.batch(epoch * count + number) for number in range(count)]
        found = torch.cat([row.targets[row.valid] for row in rows])
        assert sorted(found.tolist()) == sorted(wanted.tolist())
        epochs.append(found.tolist())
        for row in rows:
            assert (row.tokens[row.targets == PADDING] == 0).all()
    assert count < 4 or len({tuple(epoch) for epoch in epochs}) == 3
    together = BatchLoader(split, context, 5, seed=1, packing=kind(windows="once"))
    several = [loader.batch(number) for number in range(5, 10)]  # across an epoch's end
    assert torch.equal(together.batch(1).tokens, torch.cat([each.tokens for each in several]))


def test_too_little_text_is_refused(split_of):
    with pytest.raises(DataError, match="no tokens"):
        BatchLoader(split_of([]), 4, 1, seed=1, packing=Stream(windows="once"))


@pytest.mark.parametrize("packing", [Stream(), Stream(windows="once"), Whole()])
def test_what_is_read_is_counted(split_of, packing):
    split = split_of(LENGTHS)
    loader = BatchLoader(split, 8, 3, seed=1, packing=packing)
    epoch = loader._mixed[8]._rows[0].count
    steps = epoch  # three epochs
    batches = [loader.batch(step) for step in range(steps)]
    held = np.sum([int((b.tokens > 0).sum()) for b in batches])
    found = loader.reading(steps)
    assert found.tokens == len(split)
    assert found.times == pytest.approx(held / len(split))
    assert found.padding == pytest.approx(1 - held / (steps * 24))
    assert (found.padding > 0) == (packing.kind == "whole" or packing.windows == "once")
    counts = np.bincount(np.concatenate([b.tokens.numpy().ravel() for b in batches]))
    if packing.kind == "stream" and packing.windows == "once":
        own = [10 + d * 100 + p for d, n in enumerate(LENGTHS) for p in range(n)][:-1]
        assert set(counts[own]) == {3}
