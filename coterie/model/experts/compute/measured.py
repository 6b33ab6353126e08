"""The computation that was fastest when it was tried on this machine.

The first time a layer meets a class of sizes, every able computation is timed on those very tokens,
backward pass included where one will follow; the fastest is remembered for all layers of the same
sizes in this process. `measurements()` tells the times. As computations differ in the last bits, a
run with this choice repeats itself bit by bit only where the same choices were made; `auto` always
chooses alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.experts.bodies import BodyPart
from coterie.model.experts.compute.gather import GatherComputation
from coterie.model.experts.compute.grouped import GroupedComputation
from coterie.model.experts.compute.interface import Computation
from coterie.model.experts.compute.loop import LoopComputation
from coterie.model.experts.compute.padded import PaddedComputation

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


class MeasuredCompute(Settings):
    """Settings of the choice by measurement."""

    kind: Literal["measured"] = "measured"

    def build(self) -> MeasuredComputation:
        """Return the function."""
        return MeasuredComputation()


_CANDIDATES: Mapping[str, Computation] = {
    "loop": LoopComputation(),
    "grouped": GroupedComputation(),
    "padded": PaddedComputation(),
    "gather": GatherComputation(),
}
_measured: dict[SizeClass, dict[str, float]] = {}


def measurements() -> dict[SizeClass, dict[str, float]]:
    """Return the seconds of each computation tried so far, by class of sizes, fastest first."""
    return {
        sizes: dict(sorted(times.items(), key=lambda each: each[1]))
        for sizes, times in _measured.items()
    }


class MeasuredComputation(Computation):
    """Tries all computations once for each class of sizes, then stays with the fastest."""

    def _mix(
        self,
        packs: Sequence[BodyPart],
        sizes: Sequence[int],
        x: Tensor,
        indices: Tensor,
        gates: Tensor,
        *,
        partial: bool,
    ) -> Tensor:
        """Compute with the fastest, found out first if it is not known."""
        key = _class_of(packs, x, indices)
        if key not in _measured:
            able = (name for name in _CANDIDATES
                    if name != "gather" or indices.numel() <= _GATHER_PAIRS)  # fmt: skip
            _measured[key] = {
                name: _seconds(_CANDIDATES[name], packs, sizes, x, indices, gates, partial)
                for name in able
            }
        times = _measured[key]
        chosen = _CANDIDATES[min(times, key=times.__getitem__)]
        return chosen._mix(packs, sizes, x, indices, gates, partial=partial)

    def rows(
        self, pack: BodyPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert, one expert a row."""
        return LoopComputation().rows(pack, rows, counts)


def _class_of(packs: Sequence[BodyPart], x: Tensor, indices: Tensor) -> SizeClass:
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
    computation: Computation,
    packs: Sequence[BodyPart],
    sizes: Sequence[int],
    x: Tensor,
    indices: Tensor,
    gates: Tensor,
    partial: bool,
) -> float:
    """Return the best of a few times, leaving no trace in the graph or in gradients."""
    backward = torch.is_grad_enabled()
    inputs = [each.detach().requires_grad_(backward) for each in (x, gates)]
    leaves = [*inputs, *(p for pack in packs for p in pack.parameters() if p.requires_grad)]
    best = float("inf")
    # Hooks around the forward pass (recomputation has some) must not hear of these trials.
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        for _ in range(_REPEATS):
            _wait(x)
            begin = time.perf_counter()
            out = computation._mix(packs, sizes, inputs[0], indices, inputs[1], partial=partial)
            if backward:
                torch.autograd.grad(out.sum(), leaves, allow_unused=True)
            _wait(x)
            best = min(best, time.perf_counter() - begin)
    return best


def _wait(x: Tensor) -> None:
    """Wait for the device's queue, where it has one."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
