"""The gather path: for few tokens, the experts they need and no sorting.

On a CPU the selection is read once and each needed expert is called with its few rows: copying
weights together per token costs several times the products themselves there. Elsewhere, where
reading the selection would mean waiting for the device, weights are gathered per pair and
multiplied in batches.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.experts.dispatch import Dispatcher
from coterie.model.experts.kernel.interface import ExpertKernel, Packs, owners
from coterie.model.experts.kernel.loop import batched_linear
from coterie.model.mlp import MLPPart, Weights


class GatherKernel(Settings):
    """Settings of the gather path."""

    kind: Literal["gather"] = "gather"

    def build(self) -> "Gather":
        return Gather()


class Gather(ExpertKernel):
    """Takes experts to tokens instead of tokens to experts."""

    def compiles(self, packs: Packs, x: Tensor, *, partial: bool) -> bool:
        """Return that it does: every pair is computed alike."""
        return True

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
        """Compute all pairs without sorting them, where every expert is on this device."""
        if not dispatcher.local:
            return super().mix(packs, x, indices, gates, dispatcher, partial=partial)
        if indices.numel() == 0:
            return x + 0.0 * gates.sum()  # no tokens, nothing to add
        return _call(x)(packs, x, indices, gates)

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows that were sorted already: each is a token with one expert."""
        if rows.shape[0] == 0:
            return rows
        indices = owners(counts, rows.shape[0]).clamp(max=counts.shape[0] - 1)[:, None]
        return _call(rows)([pack], rows, indices, rows.new_ones(rows.shape[0], 1))


def _call(x: Tensor) -> Callable[[Packs, Tensor, Tensor, Tensor], Tensor]:
    """Return how to go through experts: a compiler merges the gathering into the products."""
    on_host = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return call_needed if on_host else call_gathered


def call_needed(
    packs: Packs, x: Float[Tensor, "N D"], indices: Int[Tensor, "N k"], gates: Float[Tensor, "N k"]
) -> Float[Tensor, "N D"]:
    """Call each needed expert once, with the tokens that chose it."""
    wanted: dict[int, list[int]] = {}
    for pair, expert in enumerate(indices.flatten().tolist()):
        wanted.setdefault(expert, []).append(pair)
    per_token = indices.shape[1]
    outputs, pairs, first = [], [], 0
    for pack in packs:
        needed = sorted(expert for expert in wanted if first <= expert < first + pack.count)
        weights = _weights_of(pack, [expert - first for expert in needed])
        for expert, own in zip(needed, weights, strict=True):
            pairs += wanted[expert]
            tokens = [pair // per_token for pair in wanted[expert]]
            mine = x if x.shape[0] == 1 else x[tokens]
            outputs.append(pack.run(mine, own, F.linear))
        if not needed and torch.is_grad_enabled():  # an idle pack gets a gradient of zeros
            (own,) = _weights_of(pack, [0])
            outputs.append(pack.run(x[:0], own, F.linear))
        first += pack.count
    if not outputs:
        return torch.zeros_like(x) + 0.0 * (x.sum() + gates.sum())
    return _sum_up(torch.cat(outputs), pairs, gates)


def _sum_up(rows: Tensor, pairs: list[int], gates: Tensor) -> Tensor:
    """Return each token's weighted sum of the rows of the given pairs."""
    tokens, per_token = gates.shape
    weights = gates.flatten().to(rows.dtype)
    if len(pairs) < tokens * per_token:  # pairs without an expert get a row of zeros
        rows = torch.cat((rows, rows.new_zeros(1, rows.shape[1])))
    place = [len(pairs)] * (tokens * per_token)
    for row, pair in enumerate(pairs):
        place[pair] = row
    return (rows[place] * weights[:, None]).unflatten(0, (tokens, per_token)).sum(1)


def _weights_of(pack: MLPPart, experts: list[int]) -> list[Weights]:
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
    packs: Packs, x: Float[Tensor, "N D"], indices: Int[Tensor, "N k"], gates: Float[Tensor, "N k"]
) -> Float[Tensor, "N D"]:
    """Multiply every pair by gathered weights, pack by pack, masking what is of other packs."""
    per_token = indices.shape[1]
    pairs, weights = indices.flatten(), gates.flatten()[:, None]
    rows = x.repeat_interleave(per_token, dim=0)[:, None]
    total, first = None, 0
    for pack in packs:
        own = (pairs >= first) & (pairs < first + pack.count)
        local = (pairs - first).masked_fill(~own, 0)
        gathered = tuple(None if w is None else w.index_select(0, local) for w in pack.weights())
        out = pack.run(rows, gathered, batched_linear)[:, 0]
        out = (out * weights.to(out.dtype)).masked_fill(~own[:, None], 0.0)
        total = out if total is None else total + out
        first += pack.count
    assert total is not None
    return total.unflatten(0, (x.shape[0], per_token)).sum(1)
