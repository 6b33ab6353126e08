"""Grouped products: all experts of a pack in one product over the sorted rows.

Where all experts are on one CPU, dispatch and combine belong to it: `fused` says what that saves.

`torch.nn.functional.grouped_mm` takes float32 and bfloat16 whose rows are multiples of 16 bytes.
On a CPU anything else, and whatever is compiled, is computed by operators of our own (`products`).
On CUDA these, in Triton, compute what torch goes through expert by expert, reading sizes on the
host: everything but bfloat16 on GPUs of compute capability 9 or more.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.experts.dispatch import Dispatcher, knows_counts, sort_pairs
from coterie.model.experts.kernel.fused import FusedExperts, Plan
from coterie.model.experts.kernel.interface import ExpertKernel, Packs, owners, product_dtype
from coterie.model.experts.kernel.loop import Loop
from coterie.model.experts.kernel.products import ExpertLinear, has_triton
from coterie.model.mlp import MLPPart

_ALIGNMENT = 16  # bytes
_DTYPES = frozenset({torch.float32, torch.bfloat16})
_OURS = frozenset({torch.float32, torch.bfloat16, torch.float16})


class GroupedKernel(Settings):
    """Settings of grouped products."""

    kind: Literal["grouped"] = "grouped"

    def build(self) -> Grouped:
        return Grouped()


class Grouped(ExpertKernel):
    """One grouped product per matrix of the MLP."""

    def __init__(self) -> None:
        self._loop = Loop()

    def compiles(self, packs: Packs, x: Tensor, *, partial: bool) -> bool:
        """Return whether products do it that compilers know, over a known number of rows."""
        if x.device.type == "cpu":
            return len(packs) == 1 and not partial
        how = [self.way(pack, x, x.shape[0]) for pack in packs if pack.names]
        bfloat16 = product_dtype(x) == torch.bfloat16  # what compilers know of torch's own
        return all(each == "own" or (each == "torch" and bfloat16) for each in how)

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
        if not dispatcher.local or not knows_counts(x) or torch.compiler.is_compiling():
            return super().mix(packs, x, indices, gates, dispatcher, partial=partial)
        sizes, dtype = [pack.count for pack in packs], product_dtype(x)
        permutation, counts = sort_pairs(indices, sum(sizes), partial=partial)
        if not len(permutation.order):  # no token found an expert
            return super().mix(packs, x, indices, gates, dispatcher, partial=partial)
        weights = [w if w is None else w.to(dtype) for pack in packs for w in pack.weights()]
        plan = Plan(packs, counts.split(sizes), permutation, torch.is_grad_enabled())
        with torch.autocast("cpu", enabled=False):
            return FusedExperts.apply(plan, x.to(dtype), gates.to(dtype), *weights)  # type: ignore[no-any-return]

    def way(self, pack: MLPPart, x: Tensor, rows: int) -> Literal["own", "torch", "loop"]:
        """Return what computes a pack: our operators, torch's grouped product, or the loop."""
        dtype, device = product_dtype(x), x.device.type
        able = rows > 0 and dtype in _DTYPES and pack.alignment * dtype.itemsize % _ALIGNMENT == 0
        if device == "cpu":
            return "torch" if able and not torch.compiler.is_compiling() else "own"
        if device == "cuda" and rows and dtype in _OURS and has_triton():
            fused = dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device)[0] >= 9
            return "torch" if able and fused else "own"
        return "torch" if able else "loop"

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "M D"]:
        """Compute rows sorted by expert."""
        dtype, way = product_dtype(rows), self.way(pack, rows, rows.shape[0])
        if way == "loop":
            return self._loop.rows(pack, rows, counts)
        ends = counts.cumsum(0).to(torch.int32)

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            x, weight = x.to(dtype), weight.to(dtype)
            if way == "own":
                product: Tensor = ExpertLinear.apply(x, weight, counts)  # pyright: ignore
            else:
                product = F.grouped_mm(x, weight.mT, offs=ends)
            if bias is None:
                return product
            padded = F.pad(bias.to(dtype), (0, 0, 0, 1))  # rows of no expert have none
            return product + padded.index_select(0, owners(counts, x.shape[0]))

        return pack.run(rows, pack.weights(), linear)
