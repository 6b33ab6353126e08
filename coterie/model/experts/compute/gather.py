"""The gather path: for few tokens, the experts they need and no sorting.

On a CPU the selection is read once and each needed expert is called with its few rows: copying
weights together per token costs several times the products themselves there. Elsewhere, where
reading the selection would mean waiting for the device, weights are gathered per pair and
multiplied in batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.experts.bodies import BodyPart, Weights
from coterie.model.experts.compute.interface import Computation
from coterie.model.experts.compute.padded import batched_linear


class GatherCompute(Settings):
    """Settings of the gather path."""

    kind: Literal["gather"] = "gather"

    def build(self) -> GatherComputation:
        """Return the function."""
        return GatherComputation()


class GatherComputation(Computation):
    """Takes experts to tokens instead of tokens to experts."""

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
        """Compute all pairs without sorting them."""
        if indices.numel() == 0:
            return x + 0.0 * gates.sum()  # no token, no answer
        call = call_needed if x.device.type == "cpu" else call_gathered
        return call(packs, sizes, x, indices, gates)

    def rows(
        self, pack: BodyPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows that were sorted already: each is a token with one expert."""
        experts = torch.arange(counts.shape[0], device=counts.device)
        indices = experts.repeat_interleave(counts, output_size=rows.shape[0])[:, None]
        ones = rows.new_ones(rows.shape[0], 1)
        return self._mix([pack], [counts.shape[0]], rows, indices, ones, partial=False)


def call_needed(
    packs: Sequence[BodyPart],
    sizes: Sequence[int],
    x: Float[Tensor, "N D"],
    indices: Int[Tensor, "N k"],
    gates: Float[Tensor, "N k"],
) -> Float[Tensor, "N D"]:
    """Call each needed expert once, with the tokens that chose it."""
    wanted: dict[int, list[int]] = {}
    for pair, expert in enumerate(indices.flatten().tolist()):
        wanted.setdefault(expert, []).append(pair)
    wanted.pop(sum(sizes), None)  # no expert
    per_token = indices.shape[1]
    outputs, first = [], 0
    for pack, size in zip(packs, sizes, strict=True):
        needed = sorted(expert for expert in wanted if first <= expert < first + size)
        weights = _weights_of(pack, [expert - first for expert in needed])
        for expert, own in zip(needed, weights, strict=True):
            tokens = [pair // per_token for pair in wanted[expert]]
            mine = x if x.shape[0] == 1 else x[tokens]
            outputs.append(pack.run(mine, own, F.linear))
        if not needed and torch.is_grad_enabled():  # an idle pack gets a gradient of zeros
            (own,) = _weights_of(pack, [0])
            outputs.append(pack.run(x[:0], own, F.linear))
        first += size
    if not outputs:
        return torch.zeros_like(x) + 0.0 * (x.sum() + gates.sum())
    pairs = [pair for expert in sorted(wanted) for pair in wanted[expert]]
    return _sum_up(torch.cat(outputs), pairs, gates)


def _sum_up(rows: Tensor, pairs: list[int], gates: Tensor) -> Tensor:
    """Return each token's weighed sum of rows that answer the given pairs."""
    tokens, per_token = gates.shape
    weights = gates.flatten().to(rows.dtype)
    if len(pairs) < tokens * per_token:  # pairs without an expert are answered by a row of zeros
        rows = torch.cat((rows, rows.new_zeros(1, rows.shape[1])))
    place = [len(pairs)] * (tokens * per_token)
    for row, pair in enumerate(pairs):
        place[pair] = row
    return (rows[place] * weights[:, None]).unflatten(0, (tokens, per_token)).sum(1)


def _weights_of(pack: BodyPart, experts: list[int]) -> list[Weights]:
    """Return the weights of some experts of a pack.

    Where gradients are wanted the pack is unbound once: indexing it expert by expert would give
    every expert a gradient of the whole pack's size.
    """
    if not experts:
        return []
    packed = pack.weights()
    if not torch.is_grad_enabled():
        return [tuple(None if w is None else w[e] for w in packed) for e in experts]
    unbound = [None if w is None else w.unbind(0) for w in packed]
    return [tuple(None if w is None else w[e] for w in unbound) for e in experts]


def call_gathered(
    packs: Sequence[BodyPart],
    sizes: Sequence[int],
    x: Float[Tensor, "N D"],
    indices: Int[Tensor, "N k"],
    gates: Float[Tensor, "N k"],
) -> Float[Tensor, "N D"]:
    """Multiply every pair by gathered weights, pack by pack, masking what is of other packs."""
    per_token = indices.shape[1]
    pairs, weights = indices.flatten(), gates.flatten()[:, None]
    rows = x.repeat_interleave(per_token, dim=0)[:, None]
    total, first = None, 0
    for pack, size in zip(packs, sizes, strict=True):
        own = (pairs >= first) & (pairs < first + size)
        local = (pairs - first).masked_fill(~own, 0)
        gathered = tuple(None if w is None else w.index_select(0, local) for w in pack.weights())
        out = pack.run(rows, gathered, batched_linear)[:, 0]
        out = (out * weights.to(out.dtype)).masked_fill(~own[:, None], 0.0)
        total = out if total is None else total + out
        first += size
    assert total is not None
    return total.unflatten(0, (x.shape[0], per_token)).sum(1)
