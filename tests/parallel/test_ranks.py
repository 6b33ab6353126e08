"""What a trainer asks of the other processes."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from coterie.foundation.errors import RunError, UserError
from coterie.parallel.ranks import ALONE, OtherRankError, Several

from .processes import run


def asked() -> list[object]:
    ranks, found = Several(torch.device("cpu")), []
    rank = distributed.get_rank()
    found.append(ranks.any(rank == 1))
    found.append(ranks.most(None if rank == 0 else 0.5))
    found.append(ranks.gather(rank))
    found.append(ranks.from_first(lambda: f"made by {rank}"))
    with pytest.raises((UserError, OtherRankError)) as refused:
        ranks.from_first(lambda: _refuse())
    found.append(refused.value.message)
    with pytest.raises(RunError) as disagreed:
        ranks.agree({"data": "abc", "torch": f"2.{rank}"})
    found.append(disagreed.value.message)
    ranks.agree({"data": "abc"})
    return found


def _refuse() -> None:
    raise UserError("no such text")


def test_every_process_hears_the_same():
    for found in run(2, asked):
        assert found[:5] == [True, 0.5, [0, 1], "made by 0", "no such text"]
        assert "torch: '2.0' on rank 0, '2.1' on rank 1" in found[5]
        assert "data" not in found[5]


def test_one_process_asks_nobody():
    assert ALONE.gather(3) == [3]
    assert ALONE.most(None) is None
    assert not ALONE.any(False)
    assert ALONE.from_first(lambda: 4) == 4
