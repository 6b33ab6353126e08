"""Dispatch, products and combine as one function on a CPU, holding little for its backward pass.

Kept are the tokens and the products that enter an activation. Rows of all pairs, k times as many as
tokens, are fetched again, activations computed again, and the products of an output matrix W are
not needed: with y = Σ W·h + b the gradient of a gate is ⟨∇, y⟩ = ⟨Wᵀ∇, h⟩ + ⟨∇, b⟩.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coterie.model.experts.dispatch import Permutation, sum_of_pairs, unsort
from coterie.model.experts.kernel.products import add_products, expert_products, weight_gradients
from coterie.model.mlp import MLPPart


class Plan(NamedTuple):
    """What is computed for which rows.

    Attributes:
        packs: the experts.
        counts: rows of each expert, by pack.
        permutation: where rows come from and go to.
        learns: whether a backward pass may follow.
    """

    packs: Sequence[MLPPart]
    counts: Sequence[Tensor]
    permutation: Permutation
    learns: bool

    def each(self, weights: Sequence[Any], rows: Tensor) -> Iterator[Any]:
        """Yield each pack, its own of what is given for every parameter, its counts and rows."""
        sizes = [int(count.sum()) for count in self.counts]
        first = 0
        for pack, counts, own in zip(self.packs, self.counts, rows.split(sizes), strict=True):
            yield pack, tuple(weights[first : first + len(pack.names)]), counts, own
            first += len(pack.names)


class FusedExperts(torch.autograd.Function):
    """Each token's sum of its experts' outputs, weighted by its gates."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, gates: Tensor, *weights: Tensor | None) -> Tensor:
        """Return the sums, [N, D], of tokens x [N, D] and gates [N, k] of one type with weights."""
        order, inverse, missing = plan.permutation
        kept: list[Tensor] = []
        outputs = []
        for pack, own, counts, rows in plan.each(weights, _fetched(x, order, gates)):
            linear = _Recording(pack, own, counts, kept if plan.learns else None)
            outputs.append(pack.run(rows, own, linear))
        ctx.plan = plan
        ctx.save_for_backward(x, gates, *weights, *kept)
        together = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return sum_of_pairs(together, gates, inverse, missing, gates.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of tokens, gates and weights."""
        plan, (x, gates, *saved) = ctx.plan, ctx.saved_tensors
        order, inverse, missing = plan.permutation
        number = sum(len(pack.names) for pack in plan.packs)
        weights, kept = saved[:number], iter(saved[number:])
        of_rows = gates.reshape(-1).index_select(0, order)[:, None]
        slopes = _fetched(gradients[0].to(x.dtype), order, gates)
        to_rows, dots, to_weights, start = [], [], [], 0
        for pack, own, counts, rows in plan.each(weights, _fetched(x, order, gates)):
            part = slice(start, start := start + rows.shape[0])
            replay = _Replaying(pack, own, counts, kept)
            with torch.enable_grad():
                rows.requires_grad_()
                y = pack.run(rows, own, replay)
            found = replay.gradients(rows, y, slopes[part], of_rows[part])
            for results, each in zip((to_rows, dots, to_weights), found, strict=True):
                results.append(each)
        to_x = sum_of_pairs(_joined(to_rows), None, inverse, missing, gates.shape)
        to_gates = unsort(_joined(dots), inverse, missing).view_as(gates)
        return None, to_x, to_gates, *(each for pack in to_weights for each in pack)


def _fetched(x: Tensor, order: Tensor, gates: Tensor) -> Tensor:
    """Return the token of each sorted pair."""
    per_token = gates.shape[1]
    return x.index_select(0, order if per_token == 1 else order // per_token)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Recording:
    """A linear map of each expert that keeps its products, but those of output matrices."""

    def __init__(
        self, pack: MLPPart, own: Sequence[Any], counts: Tensor, kept: list[Tensor] | None
    ) -> None:
        self._kept, self._counts = kept, counts
        self._outputs = [w for w, n in zip(own, pack.names, strict=True) if n in pack.outputs]

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = expert_products(x, weight.mT, self._counts)
        if bias is not None:
            product += bias.repeat_interleave(self._counts, dim=0, output_size=x.shape[0])
        if self._kept is not None and not any(weight is each for each in self._outputs):
            self._kept.append(product)
        return product


class _Replaying:
    """A linear map whose products are known; it notes its inputs, to go back by."""

    def __init__(
        self, pack: MLPPart, own: Sequence[Any], counts: Tensor, kept: Iterator[Tensor]
    ) -> None:
        self._pack, self._own, self._counts, self._kept = pack, own, counts, kept
        self._calls: list[tuple[int, Tensor, Tensor | None]] = []

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        place = next(number for number, each in enumerate(self._own) if each is weight)
        if self._pack.names[place] in self._pack.outputs:
            self._calls.append((place, x, None))
            return x.new_zeros(()).expand(x.shape[0], weight.shape[1])  # nobody looks at it
        product = next(self._kept).detach().requires_grad_()
        self._calls.append((place, x, product))
        return product

    def gradients(
        self, x: Tensor, y: Tensor, slope: Tensor, gates: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Return the gradients of the rows, of their gates and of the parameters.

        Args:
            x: the rows, which the calls began with.
            y: what came of them; looked at only where there was no call.
            slope: the gradient of their weighted outputs.
            gates: their weights, [R, 1].
        """
        to_own: list[Tensor | None] = [None] * len(self._own)
        if not self._calls:  # experts without weights
            dots, to_x = torch.linalg.vecdot(y, slope), torch.zeros_like(x)
            if y.requires_grad:
                (to_x,) = torch.autograd.grad(y, x, slope * gates)
            return to_x, dots, to_own
        leaves = [x, *(product for _, _, product in self._calls if product is not None)]
        found: dict[int, Tensor] = {}
        dots = slope.new_zeros(slope.shape[0])
        for place, entered, product in reversed(self._calls):
            weight, bias = self._own[place], self._own[place + 1]
            back: Tensor | None = None
            weighed, left = entered, slope if product is None else found.pop(id(product))
            if product is None:
                back = expert_products(slope, weight, self._counts)
                dots += torch.linalg.vecdot(back, entered)
                back *= gates
                weighed = entered * gates
            to_own[place] = weight_gradients(weighed, left, self._counts)
            if bias is not None:
                of_rows = bias.repeat_interleave(self._counts, dim=0, output_size=x.shape[0])
                if product is None:
                    dots += torch.linalg.vecdot(slope, of_rows)
                    left = slope * gates
                ones = left.new_ones(left.shape[0], 1)
                to_own[place + 1] = weight_gradients(ones, left, self._counts)[..., 0]
            if back is None and entered is x and id(x) in found:
                add_products(found[id(x)], left, weight, self._counts)
                continue
            back = expert_products(left, weight, self._counts) if back is None else back
            if entered is x:
                found[id(x)] = back if id(x) not in found else found[id(x)] + back
                continue
            grads = torch.autograd.grad(entered, leaves, back, retain_graph=True, allow_unused=True)
            for leaf, grad in zip(leaves, grads, strict=True):
                if grad is not None:
                    known = found.get(id(leaf))
                    found[id(leaf)] = grad if known is None else known + grad
        return found[id(x)], dots, to_own
