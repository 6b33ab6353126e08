"""Parameters cut over processes, and forward passes over the pieces.

A parameter that a plan cuts becomes a DTensor of the same name and shape. The modules themselves
compute on plain tensors and know nothing of it: while a module's forward pass runs, the piece that
this process holds stands in the parameter's place.

Within a group of processes that share one computation, `entering` and `leaving` mark its two ends.
What goes in is whole on every process and each computes a part of the gradient, so gradients are
added up on the way back; what comes out is a part of the sum on each, so values are added up on the
way there (the conjugate operators f and g of Shoeybi et al. 2019, arXiv:1909.08053, section 3).
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

Piece = Callable[[Tensor], Tensor | None]
"""Returns what a module computes with in the place of a parameter."""


def entering(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return x, which is whole on each process of the mesh; its gradients are added up."""
    whole = DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    return whole.to_local(grad_placements=[Partial()])


def leaving(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return the sum over the processes of the mesh; each gets its gradient whole."""
    parts = DTensor.from_local(x, mesh, [Partial()], run_check=False)
    return parts.redistribute(placements=[Replicate()]).to_local()


def cut(module: nn.Module, name: str, mesh: DeviceMesh, dim: int) -> None:
    """Let each process of the mesh keep a piece of a parameter, cut along a dimension.

    A parameter that is cut already, along another dimension over an outer mesh, is cut again; then
    `mesh` has both dimensions, the outer one first.
    """
    whole = module._parameters[name]
    assert whole is not None
    if isinstance(whole, DTensor):
        inner = mesh[mesh.mesh_dim_names[-1]] if mesh.mesh_dim_names else mesh
        piece = distribute_tensor(
            whole.to_local().detach(), inner, [Shard(dim)], src_data_rank=None
        )
        placements = [*whole.placements, Shard(dim)]
        both = DTensor.from_local(
            piece.to_local(), mesh, placements, run_check=False,
            shape=whole.shape, stride=whole.stride(),
        )  # fmt: skip
    else:
        both = distribute_tensor(whole.detach(), mesh, [Shard(dim)], src_data_rank=None)
    module._parameters[name] = nn.Parameter(both, requires_grad=whole.requires_grad)


def piece_of(parameter: Tensor) -> Tensor:
    """Return the piece of a parameter that this process holds."""
    assert isinstance(parameter, DTensor)
    return parameter.to_local()


def computes_with(
    module: nn.Module, pieces: Mapping[str, Piece], during: nn.Module | None = None
) -> None:
    """Put pieces in the place of a module's parameters while a forward pass runs.

    Args:
        module: whose parameters they are.
        pieces: by the parameter's name.
        during: whose forward pass it is; None: the module's own.
    """
    owner = module if during is None else during
    there = {name: each for name, each in pieces.items() if name in dict(module.named_parameters())}

    def before(_: nn.Module, args: Any) -> None:
        for name, piece in there.items():
            # Found before a module looks among its parameters, which stay what they are.
            module.__dict__[name] = piece(module._parameters[name])  # type: ignore[arg-type]

    def after(_: nn.Module, args: Any, output: Any) -> None:
        for name in there:
            module.__dict__.pop(name, None)

    owner.register_forward_pre_hook(before)
    owner.register_forward_hook(after, always_call=True)
