"""The kernel that was fastest when it was tried on this machine.

The first time a layer meets a class of sizes, every able kernel is timed on those very tokens,
backward pass included where one will follow; the fastest is remembered for all layers of the same
sizes in this process. `measurements()` returns the times. As kernels differ in the last bits, a run
with this choice repeats itself bit by bit only where the same choices were made; `auto` always
chooses alike.
"""

import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.dispatch import Dispatcher
from coterie.model.experts.kernel.gather import Gather
from coterie.model.experts.kernel.grouped import Grouped
from coterie.model.experts.kernel.interface import ExpertKernel, Packs
from coterie.model.experts.kernel.loop import Loop, Padded
from coterie.model.mlp import MLPPart

_REPEATS = 3
_GATHER_PAIRS = 64  # beyond, calling experts without sorting cannot pay


class SizeClass(NamedTuple):
    """What one choice holds for.

    Attributes:
        device: kind of device.
        dtype: type of the tokens, or of products under autocast.
        shapes: of each pack's matrices, [experts, out, in].
        pairs: (token, expert) pairs, rounded up to a power of two.
        backward: whether a backward pass follows.
    """

    device: str
    dtype: torch.dtype
    shapes: tuple[tuple[int, ...], ...]
    pairs: int
    backward: bool


class MeasuredKernel(Settings):
    """Settings of the choice by measurement."""

    kind: Literal["measured"] = "measured"

    def build(self) -> "Measured":
        return Measured()


_CANDIDATES: Mapping[str, ExpertKernel] = {
    "loop": Loop(),
    "grouped": Grouped(),
    "padded": Padded(),
    "gather": Gather(),
}
_measured: dict[SizeClass, dict[str, float]] = {}


def measurements() -> dict[SizeClass, dict[str, float]]:
    """Return the seconds of each kernel tried so far, by class of sizes, fastest first."""
    return {
        sizes: dict(sorted(times.items(), key=lambda each: each[1]))
        for sizes, times in _measured.items()
    }


class Measured(ExpertKernel):
    """Tries all kernels once for each class of sizes, then stays with the fastest."""

    def chosen(
        self, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
    ) -> ExpertKernel:
        """Return the fastest, found out first if it is not known."""
        key = _class_of(packs, x, indices)
        if key not in _measured:
            able = (name for name in _CANDIDATES
                    if name != "gather" or indices.numel() <= _GATHER_PAIRS)  # fmt: skip
            _measured[key] = {
                name: _seconds(_CANDIDATES[name], packs, x, indices, dispatcher) for name in able
            }
        times = _measured[key]
        return _CANDIDATES[min(times, key=times.__getitem__)]

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert, one expert after the other."""
        return _CANDIDATES["loop"].rows(pack, rows, counts)


def _class_of(packs: Packs, x: Tensor, indices: Tensor) -> SizeClass:
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    return SizeClass(
        device=device,
        dtype=torch.get_autocast_dtype(device) if autocast else x.dtype,
        shapes=tuple(tuple(w.shape) for pack in packs for w in pack.weights() if w is not None),
        pairs=1 << max(indices.numel() - 1, 0).bit_length(),
        backward=torch.is_grad_enabled(),
    )


def _seconds(
    kernel: ExpertKernel, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
) -> float:
    """Return the best of a few times, leaving no trace in the graph or in gradients."""
    backward = torch.is_grad_enabled()
    x = x.detach().requires_grad_(backward)
    gates = torch.ones(indices.shape, device=x.device).requires_grad_(backward)
    leaves = [x, gates, *(p for pack in packs for p in pack.parameters() if p.requires_grad)]
    best = float("inf")
    # Hooks around the forward pass (activation checkpointing has some) must not see these trials.
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        for _ in range(_REPEATS):
            _wait(x)
            begin = time.perf_counter()
            out = kernel.mix(packs, x, indices, gates, dispatcher, partial=True)
            if backward:
                torch.autograd.grad(out.sum(), leaves, allow_unused=True)
            _wait(x)
            best = min(best, time.perf_counter() - begin)
    return best


def _wait(x: Tensor) -> None:
    """Wait for the device's queue, where it has one."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
