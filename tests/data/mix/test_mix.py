"""A mixer from outside the package: several sources in one batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.data import BatchLoader, DataSettings, TokenArray
from coterie.data.mix import Share, part_of
from coterie.data.packing import Isolated, Stream, Whole
from coterie.foundation.settings import Settings


class InTurn(Settings):
    """Row after row from each source in turn."""

    kind: str

    def build(self, sources, seed):
        return _InTurn(len(sources))


class _InTurn:
    def __init__(self, sources: int) -> None:
        self._sources = sources

    def shares(self, step, batch_size, rank, world):
        first, count = part_of(step, batch_size, rank, world)
        rows = range(first, first + count)
        return [Share(row % self._sources, row // self._sources, 1) for row in rows]


MIX = DataSettings.model_validate({"mix": {"kind": f"{__name__}:InTurn"}}).mix


@pytest.mark.parametrize("packing", [Stream(), Isolated(), Whole()], ids=lambda each: each.kind)
def test_rows_come_from_the_sources_that_the_mixer_names(packing):
    splits = [
        TokenArray([np.arange(count, dtype=np.uint16)], starts=lambda: np.array([0, 9, 20]))
        for count in (40, 90)
    ]
    alone = [BatchLoader(split, 8, 1, seed=1, packing=packing) for split in splits]
    mixed = BatchLoader(splits, 8, 6, seed=1, packing=packing, mix=MIX)
    for step in range(4):
        batch = mixed.batch(step)
        assert batch.sources.tolist() == [0, 1] * 3
        for row in range(6):
            own = alone[row % 2].batch((step * 6 + row) // 2)
            assert torch.equal(batch.tokens[row : row + 1], own.tokens)
            assert torch.equal(batch.targets[row : row + 1], own.targets)
            if own.documents is not None:
                assert torch.equal(batch.documents[row : row + 1], own.documents)
    parts = [
        BatchLoader(splits, 8, 6, seed=1, rank=rank, world=2, packing=packing, mix=MIX).batch(3)
        for rank in range(2)
    ]
    for name in ("tokens", "targets", "sources"):
        both = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(both, getattr(mixed.batch(3), name))
    assert alone[0].batch(0).sources is None
