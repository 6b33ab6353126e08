"""Whole tensors at an owner each: for updates that need a matrix as a whole.

Tensors are shared out by cost, each to one process. Before an update the parts of each gradient go
to its owner, afterwards the parts of the new weights come back: two all-to-all messages a step,
whatever the layout, and no process computes what another does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from coterie.parallel.ranks import Ranks
from coterie.parallel.shard import local

Block = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a part begins in the whole, and its shape."""


class Owners:
    """Who owns which of some tensors.

    Attributes:
        mine: the numbers of those that this process owns.
    """

    def __init__(self, tensors: Sequence[Tensor], costs: Sequence[float], ranks: Ranks) -> None:
        """Share tensors out, the dearest first, each to whoever has the least to do.

        Args:
            tensors: the same on every process but for their parts.
            costs: of updating each.
            ranks: those that hold parts of them.
        """
        self._parts = [local(each) for each in tensors]
        self._shapes = [each.shape for each in tensors]
        self._rank, world, self._group = ranks.rank, ranks.world, ranks.group
        busy = [0.0] * world
        owners = [0] * len(tensors)
        for number in sorted(range(len(tensors)), key=lambda n: (-costs[n], n)):
            owners[number] = min(range(world), key=busy.__getitem__)
            busy[owners[number]] += costs[number]
        self.mine = [n for n, owner in enumerate(owners) if owner == self._rank]
        held = ranks.gather([_block(each) for each in tensors])
        # What each process sends to which owner: every part once, by the owner itself if it can.
        self._towards: list[list[list[tuple[int, Block]]]] = _empty(world)
        self._back: list[list[list[tuple[int, Block]]]] = _empty(world)
        for number, owner in enumerate(owners):
            turn = [owner, *((owner + step) % world for step in range(1, world))]
            seen: set[Block] = set()
            for rank in turn:
                block = held[rank][number]
                if block is None or not math.prod(block[1]):
                    continue
                self._back[owner][rank].append((number, block))
                if block not in seen:
                    seen.add(block)
                    self._towards[rank][owner].append((number, block))

    def gather(self, parts: Sequence[Tensor | None]) -> dict[int, Tensor]:
        """Return the whole of each tensor that is mine, made of every process's parts.

        Args:
            parts: of this process, in the tensors' order; None is zeros.
        """
        sent = [
            torch.zeros_like(self._parts[n]) if (part := parts[n]) is None else part
            for there in self._towards[self._rank]
            for n, _ in there
        ]
        found = {n: self._new(self._shapes[n]) for n in self.mine}
        for (number, block), part in self._exchange(self._towards, sent):
            _inside(found[number], block).copy_(part)
        return found

    def scatter(self, wholes: Mapping[int, Tensor]) -> None:
        """Put the parts of wholes into every process's tensors; each owner gives its own."""
        sent = [_inside(wholes[n], block) for there in self._back[self._rank] for n, block in there]
        for (number, _), part in self._exchange(self._back, sent):
            self._parts[number].copy_(part)

    def _exchange(
        self, table: list[list[list[tuple[int, Block]]]], sent: Sequence[Tensor]
    ) -> list[tuple[tuple[int, Block], Tensor]]:
        """Send what the table says; return what came, with what it is."""
        to = [sum(math.prod(block[1]) for _, block in there) for there in table[self._rank]]
        came = [here[self._rank] for here in table]
        sizes = [[math.prod(block[1]) for _, block in here] for here in came]
        flat = [each.reshape(-1).to(torch.float32) for each in sent]
        message = torch.cat(flat) if flat else self._new(torch.Size([0]))
        received = self._new(torch.Size([sum(map(sum, sizes))]))
        came_sizes = [sum(each) for each in sizes]
        distributed.all_to_all_single(received, message, came_sizes, to, group=self._group)
        every = [each for here in came for each in here]
        parts = received.split([size for here in sizes for size in here])
        return [(each, part.view(each[1][1])) for each, part in zip(every, parts, strict=True)]

    def _new(self, shape: torch.Size) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._parts[0].device)


def _block(tensor: Tensor) -> Block | None:
    """Return which part of a tensor this process holds."""
    if not isinstance(tensor, DTensor):
        return (0,) * tensor.ndim, tuple(tensor.shape)
    shape, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return tuple(offset), tuple(shape)


def _inside(whole: Tensor, block: Block) -> Tensor:
    return whole[tuple(slice(b, b + size) for b, size in zip(*block, strict=True))]


def _empty(world: int) -> list[list[list[tuple[int, Block]]]]:
    return [[[] for _ in range(world)] for _ in range(world)]
