"""Rows of a batch divided among processes: replicas, shards (FSDP2) and groups of both (HSDP).

torch's `fully_shard` does all of it, on a decoder that knows nothing of it; a replica is a shard of
one. Gradients are summed, not averaged, for the objective has divided by the whole batch already.
Experts are a unit of their own beside the rest of their block, so that they are gathered, or kept,
apart from attention, and every process gathers the same units in the same order whatever its tokens
select. Rajbhandari et al. 2020 (ZeRO), arXiv:1910.02054; Zhao et al. 2023 (FSDP), arXiv:2304.11277.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from coterie.model import Decoder
from coterie.model.blocks import Block
from coterie.model.experts import MixtureOfExpertsPart
from coterie.parallel.expert import spread_parameters
from coterie.parallel.mesh import Mesh
from coterie.parallel.settings import Parallel

_TYPES = {"float32": None, "bfloat16": torch.bfloat16}


def shard(decoder: Decoder, mesh: Mesh, settings: Parallel) -> None:
    """Divide a decoder's parameters among the processes that read different rows, in place."""
    # Nothing in the decoder writes into what a part returned.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    replicas = mesh.replicas
    policy = MixedPrecisionPolicy(param_dtype=_TYPES[settings.gather], cast_forward_inputs=False)
    alone = replicas.size(-1) == 1
    again = not (settings.keep_gathered or alone or settings.pipeline > 1)
    units: list[FSDPModule] = []

    def wrap(module: nn.Module, kind: MixedPrecisionPolicy = policy, **given: object) -> None:
        fully_shard(
            module,
            mesh=replicas,
            reshard_after_forward=again,
            mp_policy=kind,
            **given,  # type: ignore[call-overload]
        )

    spread = set(spread_parameters(decoder))  # divided already, among those that read rows
    for place, block in enumerate(blocks_of(decoder)):
        feedforward = block.feedforward
        if isinstance(feedforward, MixtureOfExpertsPart):
            if settings.gather != "float32":  # small differences decide selections
                wrap(feedforward.router, MixedPrecisionPolicy())
            wrap(feedforward, ignored_params=spread)
        wrap(block, ignored_params=spread)
        if place >= len(decoder.blocks):
            continue  # evaluation leaves it out: gathered ahead, it would be stale in the next step
        units += [cast("FSDPModule", block)]
        if isinstance(feedforward, MixtureOfExpertsPart):
            units.append(cast("FSDPModule", feedforward))
    idle = {p for head in (decoder.value, decoder.pooled) if head for p in head.parameters()}
    wrap(decoder, ignored_params=idle | spread)  # pretraining never asks these heads for anything
    for module in sharded_modules(decoder):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
        module.set_reduce_scatter_unused_params(True)  # experts that no token of a process chose
        if mesh.whole.device_type == "cpu":
            module.set_custom_reduce_scatter(SumOfPieces())  # type: ignore[arg-type]
    if settings.prefetch > 1:
        for place, unit in enumerate(units):
            unit.set_modules_to_forward_prefetch(units[place + 1 : place + 1 + settings.prefetch])
            before = units[max(place - settings.prefetch, 0) : place]
            unit.set_modules_to_backward_prefetch(before[::-1])


class SumOfPieces:
    """Reduces and scatters by sending each process its pieces; gloo's own sums all everywhere.

    That is (n − 1)/n of the gradients, half of what an all-reduce sends, in one round.
    """

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return room for as many values as torch's units ask for."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        op: object,
        async_op: bool = False,
    ) -> None:
        """Write the sum over the group of this process's piece of `input_tensor`."""
        assert op == distributed.ReduceOp.SUM, f"{op} is no sum"
        assert not async_op, "what follows reads it at once"
        pieces = torch.empty_like(input_tensor)
        distributed.all_to_all_single(pieces, input_tensor, group=group)
        torch.sum(pieces.view(group.size(), -1), 0, out=output_tensor)


def blocks_of(decoder: Decoder) -> Iterator[Block]:
    """Yield every block, those of multi-token prediction after the decoder's own."""
    for block in (*decoder.blocks, *(module.block for module in decoder.mtp)):
        assert isinstance(block, Block)
        yield block


def sharded_modules(decoder: nn.Module) -> Iterator[FSDPModule]:
    """Yield the units that are gathered together."""
    return (module for module in decoder.modules() if isinstance(module, FSDPModule))


def end_backward(decoder: nn.Module) -> None:
    """Add up the gradients of backward passes that left that out, as torch's own stages do."""
    for module in sharded_modules(decoder):
        module.set_requires_gradient_sync(True, recurse=False)
        module.set_reshard_after_backward(True, recurse=False)
        module.set_is_last_backward(True)
    root = fully_shard.state(decoder)  # type: ignore[attr-defined]
    for state in root._state_ctx.all_states:
        for group in state._fsdp_param_groups:
            group.post_backward()
    root._root_post_backward_final_callback()


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, in the tensor's own memory."""
    return tensor._local_tensor.detach() if isinstance(tensor, DTensor) else tensor.detach()


def like(part: Tensor, whole: Tensor) -> Tensor:
    """Return a part of this process as part of a whole that is divided as another tensor is."""
    if not isinstance(whole, DTensor):
        return part
    return DTensor.from_local(
        part, whole.device_mesh, whole.placements, run_check=False,
        shape=whole.shape, stride=whole.stride(),
    )  # fmt: skip


def copied(tensor: Tensor) -> Tensor:
    """Return a copy in host memory, of a divided tensor of this process's part of it."""
    part = local(tensor).to("cpu", copy=True)
    return DTensor(part, tensor._spec, requires_grad=False) if isinstance(tensor, DTensor) else part


def part_of(value: Tensor, of: Tensor) -> Tensor:
    """Return the part of a whole value that goes with this process's part of a tensor."""
    if isinstance(value, DTensor) or not isinstance(of, DTensor):
        return local(value)
    return distribute_tensor(value, of.device_mesh, of.placements, src_data_rank=None).to_local()


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process that holds a part must ask at once."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def copies(tensor: Tensor) -> int:
    """Return how many processes hold the same part of a tensor as this one."""
    world = distributed.get_world_size()
    if not isinstance(tensor, DTensor):
        return world
    mesh: DeviceMesh = tensor.device_mesh
    divided = [  # a shard of a shard is none to is_shard
        mesh.size(axis) for axis, each in enumerate(tensor.placements) if not each.is_replicate()
    ]
    return world // math.prod(divided)
