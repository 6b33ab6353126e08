"""Expert parallelism: each process holds some experts, and tokens travel to them and back.

Lepikhin et al. 2020 (GShard), arXiv:2006.16668, section 3.2. A process sorts its tokens by the
process of their expert, tells the others how many come (one exchange of counts), sends them, sorts
what it got by expert, computes, and sends the outputs back the same way: `all_to_all_single`, whose
gradient is the exchange the other way round. Splits are as unequal as the routing is; nothing is
padded, and a process that no token comes to takes part in each exchange all the same.

Each pack is cut by itself in torch's way (as `Tensor.chunk`), so that a pack's weights are one
DTensor; shared experts stay whole on every process, and so do experts without weights, which a
token need not leave its process for. The gradient of an expert's weights is whole where they are:
it has seen the tokens of all processes of the group.

Apart from that, what a router does with a micro-batch shall not depend on how its rows are spread:
`share_statistics` adds up the loads behind load balancing losses and gives room in the order of
the whole micro-batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd, wait_tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from coterie.model import Decoder, DecoderSettings, routed_layers
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.capacity import overflow_mask
from coterie.model.experts.dispatch import Dispatched, LocalDispatcher
from coterie.model.experts.kernel.interface import Picked
from coterie.model.mlp import MLPPart
from coterie.parallel.cut import computes_with, cut, piece_of


def expert_problems(model: DecoderSettings, processes: int) -> Iterator[str]:
    """Yield what stands against spreading a model's experts over so many processes."""
    if processes == 1:
        return
    plans = [*model.plans(), *([model.mtp_plan()] if model.mtp else [])]
    routed = [plan.feedforward for plan in plans if isinstance(plan.feedforward, MixtureOfExperts)]
    told = set()
    if not routed:
        told.add(
            f"expert={processes} needs layers with experts, of which there are none; set it to 1"
        )
    for layer in routed:
        if layer.kernel.kind == "measured":
            told.add(
                f"expert={processes}: kernel “measured” tries some kernels more often than other "
                "processes do, which would wait for it; choose auto, loop, grouped or padded"
            )
        for pack in layer.experts:
            if pack.computes and -(-pack.count // _largest(pack.count, processes)) < processes:
                able = [n for n in range(1, processes) if _fills(pack.count, n)]
                told.add(
                    f"expert={processes} leaves processes without any of a pack's {pack.count} "
                    f"experts ({_largest(pack.count, processes)} go to each until none is left); "
                    f"the next that works is {able[-1]}"
                )
    yield from sorted(told)


def _largest(count: int, processes: int) -> int:
    return -(-count // processes)


def _fills(count: int, processes: int) -> bool:
    """Return whether every process gets an expert where each takes ⌈count / processes⌉ in turn."""
    return -(-count // _largest(count, processes)) == processes


@dataclass(frozen=True)
class _Places:
    """Which process holds which expert, seen from one process.

    Attributes:
        place: of each expert in the order that tokens are sorted in, process after process, [E + 1]
            with E for none.
        table: [processes, most], the expert's place at each process, E where it has fewer.
        local: how many experts are here.
    """

    place: Tensor
    table: Tensor
    local: int

    @classmethod
    def of(cls, packs: list[MLPPart], processes: int, rank: int) -> "_Places":
        held: list[list[int]] = [[] for _ in range(processes)]
        first = 0
        for pack in packs:
            experts = range(first, first + pack.count)
            first += pack.count
            for process, own in enumerate(held):
                share = _largest(pack.count, processes)
                own += experts[process * share : (process + 1) * share] if pack.names else (
                    experts if process == rank else [-1] * pack.count
                )  # fmt: skip
        place = torch.full((first + 1,), first)
        order = [expert for own in held for expert in own if expert >= 0]
        place[torch.tensor(order)] = torch.arange(first)
        table = torch.full((processes, max(map(len, held))), first)
        for process, own in enumerate(held):
            for column, expert in enumerate(own):
                table[process, column] = place[expert]
        return cls(place, table, len(held[rank]))


class _Route(NamedTuple):
    """How rows go back: to their order of arrival, to their processes, to their tokens."""

    there: Tensor
    back: Tensor
    sent: list[int]
    received: list[int]
    home: Any


class ExpertDispatcher:
    """Sends rows to the processes of a group that hold their experts."""

    local = False

    def __init__(self, packs: list[MLPPart], mesh: DeviceMesh) -> None:
        """Take note of who holds what; the packs are whole still."""
        self._group = mesh.get_group()
        self._home = LocalDispatcher(sum(pack.count for pack in packs))
        self._places = _Places.of(packs, mesh.size(), mesh.get_local_rank())

    def dispatch(
        self, x: Float[Tensor, "N D"], indices: Int[Tensor, "N k"], *, partial: bool
    ) -> Dispatched:
        """Return the rows that came from all processes, sorted by the experts that are here."""
        places = self._places
        order, table = places.place.to(x.device), places.table.to(x.device)
        rows, counts, home = self._home.dispatch(x, order[indices], partial=partial)
        sends = torch.cat((counts, counts.new_zeros(1)))[table]
        comes = torch.empty_like(sends)
        dist.all_to_all_single(comes, sends, group=self._group)
        sent, received = sends.sum(1).tolist(), comes.sum(1).tolist()
        if rows.shape[0] > sum(sent):  # off the CPU rows of no expert stand behind the others
            rows = rows[: sum(sent)]
        arrived = self._exchanged(rows, received, sent)
        there = _by_expert(comes)
        back = torch.empty_like(there)
        back[there] = torch.arange(there.shape[0], device=there.device)
        sorted_rows = Picked.apply(arrived, there, back)
        route = _Route(there, back, sent, received, home)
        return Dispatched(sorted_rows, comes.sum(0)[: places.local], route)

    def combine(
        self, outputs: Float[Tensor, "rows D"], gates: Float[Tensor, "N k"], route: _Route
    ) -> Float[Tensor, "N D"]:
        """Send the outputs back and return each token's weighted sum."""
        arrived = Picked.apply(outputs, route.back, route.there)
        rows = self._exchanged(arrived, route.sent, route.received)
        return self._home.combine(rows, gates, route.home)

    def _exchanged(self, rows: Tensor, comes: list[int], goes: list[int]) -> Tensor:
        return wait_tensor(all_to_all_single_autograd(rows, comes, goes, self._group))


def _by_expert(comes: Int[Tensor, "processes L"]) -> Int[Tensor, " R"]:
    """Return which row of those that arrived, process after process, stands at each place."""
    experts = torch.arange(comes.shape[1], device=comes.device).expand_as(comes)
    of_rows = experts.reshape(-1).repeat_interleave(comes.reshape(-1))
    return of_rows.argsort(stable=True)


def spread_experts(decoder: Decoder, mesh: DeviceMesh) -> None:
    """Spread the experts of each routed layer over the processes of a mesh of one dimension.

    Each process goes on with its own tokens. Weights become DTensors of unchanged names.
    """
    for part in routed_layers(decoder).values():
        packs: list[MLPPart] = list(part.experts)  # pyright: ignore[reportAssignmentType]
        part.dispatcher = ExpertDispatcher(packs, mesh)
        for pack in packs:
            held = [name for name in pack.names if getattr(pack, name) is not None]
            for name in held:
                cut(pack, name, mesh, 0)
            if held:
                pack.count = pack.experts = pack._parameters[held[0]].to_local().shape[0]  # type: ignore[union-attr]
            computes_with(pack, dict.fromkeys(held, piece_of), during=part)


def spread_parameters(decoder: Decoder) -> Iterator[nn.Parameter]:
    """Yield the weights of experts that are spread, whose gradients have seen their whole group."""
    for parameter in decoder.parameters():
        if isinstance(parameter, DTensor) and "expert" in (
            parameter.device_mesh.mesh_dim_names or ()
        ):
            yield parameter


def share_statistics(decoder: Decoder, group: dist.ProcessGroup) -> None:
    """Let routers see the micro-batch that the processes of a group share as one.

    Rows of the group's processes follow each other in the order of their ranks; each process has as
    many rows as the others, of one length.
    """

    def summed(load: Tensor) -> Tensor:
        total = load.clone()
        dist.all_reduce(total, group=group)
        return total

    for part in routed_layers(decoder).values():
        part.balance.total = summed
        part.overflow = _SharedRoom(group)


class _SharedRoom:
    """Gives room in the order of the whole micro-batch: what one process with all rows would do."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    @torch.no_grad()
    def __call__(
        self,
        indices: Int[Tensor, "B T k"],
        valid: Bool[Tensor, "B T"] | None,
        experts: int,
        capacity_factor: float,
    ) -> Bool[Tensor, "B T k"]:
        """Return the pairs of this process that find no room."""
        rows, rank = indices.shape[0], self._group.rank()
        everyone = self._gathered(indices)
        counted = None if valid is None else self._gathered(valid.to(torch.uint8)).bool()
        overflow = overflow_mask(everyone, counted, experts, capacity_factor)
        return overflow[rank * rows : (rank + 1) * rows]

    def _gathered(self, own: Tensor) -> Tensor:
        own = own.contiguous()
        rows = own.new_empty(self._group.size() * own.shape[0], *own.shape[1:])
        dist.all_gather_single(rows, own, group=self._group)
        return rows
