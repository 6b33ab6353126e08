"""Grouped products: all experts of a pack in one product over the sorted rows.

Where all experts are on one CPU, dispatch and combine belong to it: `fused` says what that saves.

`torch.nn.functional.grouped_mm` takes float32 and bfloat16 whose rows are multiples of 16 bytes.
On a CPU anything else, and whatever is compiled, is computed by operators of our own (`products`);
elsewhere by the loop.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.experts.dispatch import Dispatcher, sort_pairs
from coterie.model.experts.kernel.fused import FusedExperts, Plan
from coterie.model.experts.kernel.interface import ExpertKernel, Packs
from coterie.model.experts.kernel.loop import Loop
from coterie.model.experts.kernel.products import ExpertLinear
from coterie.model.feedforward import MLPPart

_ALIGNMENT = 16  # bytes
_DTYPES = frozenset({torch.float32, torch.bfloat16})


class GroupedKernel(Settings):
    """Settings of grouped products."""

    kind: Literal["grouped"] = "grouped"

    def build(self) -> Grouped:
        """Return the kernel."""
        return Grouped()


class Grouped(ExpertKernel):
    """One grouped product per matrix of the MLP."""

    def __init__(self) -> None:
        self._loop = Loop()

    def compiles(self, packs: Packs, x: Tensor, *, partial: bool) -> bool:
        """Return whether products do it that compilers know, over a known number of rows."""
        if len(packs) > 1 or partial or x.device.type == "cpu":
            return len(packs) == 1 and not partial
        dtype = _product_dtype(x)
        return dtype == torch.bfloat16 and x.shape[0] > 0 and _is_able(packs[0], dtype)

    def mix(
        self,
        packs: Packs,
        x: Float[Tensor, "N D"],
        indices: Int[Tensor, "N k"],
        gates: Float[Tensor, "N k"],
        dispatcher: Dispatcher,
        *,
        partial: bool,
    ) -> Float[Tensor, "N D"]:
        """Return each token's weighted sum; in one function where all experts are on this CPU."""
        if not dispatcher.local or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().mix(packs, x, indices, gates, dispatcher, partial=partial)
        sizes, dtype = [pack.count for pack in packs], _product_dtype(x)
        permutation, counts = sort_pairs(indices, sum(sizes), partial=partial)
        if not len(permutation.order):  # no token found an expert
            return super().mix(packs, x, indices, gates, dispatcher, partial=partial)
        weights = [w if w is None else w.to(dtype) for pack in packs for w in pack.weights()]
        plan = Plan(packs, counts.split(sizes), permutation, torch.is_grad_enabled())
        with torch.autocast("cpu", enabled=False):
            return FusedExperts.apply(plan, x.to(dtype), gates.to(dtype), *weights)  # type: ignore[no-any-return]

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert."""
        dtype, number, own = _product_dtype(rows), rows.shape[0], rows.device.type == "cpu"
        if number and _is_able(pack, dtype):
            own = own and torch.compiler.is_compiling()
        elif not own:
            return self._loop.rows(pack, rows, counts)
        ends = counts.cumsum(0).to(torch.int32)

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            x, weight = x.to(dtype), weight.to(dtype)
            if own:
                product: Tensor = ExpertLinear.apply(x, weight, counts)  # pyright: ignore
            else:
                product = F.grouped_mm(x, weight.mT, offs=ends)
            if bias is None:
                return product
            return product + bias.to(dtype).repeat_interleave(counts, dim=0, output_size=number)

        return pack.run(rows, pack.weights(), linear)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the type to multiply in; autocast does not know grouped products."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _is_able(pack: MLPPart, dtype: torch.dtype) -> bool:
    return dtype in _DTYPES and pack.alignment * dtype.itemsize % _ALIGNMENT == 0
