"""What a step adds up: the loss to be minimised, its terms, and the loads of the routed layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.parallel.together import Together
from coterie.train.objective import Terms


def total_counts(
    counts: Iterable[Mapping[str, Tensor]], together: Together | None = None
) -> dict[str, Tensor]:
    """Return the counts of all micro-batches together; 1 instead of 0, for nothing is divided then.

    Args:
        counts: of each micro-batch.
        together: sums them over the processes that share the batch; None: there is one.
    """
    totals: dict[str, Tensor] = {}
    for each in counts:
        for name, count in each.items():
            totals[name] = totals[name] + count if name in totals else count
    if together is not None:
        totals = together.counts(totals)
    return {name: total.where(total > 0, 1) for name, total in totals.items()}


@dataclass
class StepMetrics:
    """What a step's micro-batches add up to, kept outside autograd.

    Attributes:
        loss: the objective's own, without the routers' terms; for a language model the mean nats
            per valid token.
        auxiliary: the other terms by name, coefficients included.
        loads: tokens per expert of each routed layer, [E].
        dropped: tokens that found no expert in each routed layer.
        entropies: of each routed layer, [2]: the entropies of its tokens' shares, in nats, added
            up, and how many tokens those are; none at steps where nobody asked.
        rows: of mixed sources, [3, rows]: the source of each row, its loss added up, and the weight
            of its targets.
    """

    loss: Tensor | float = 0.0
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    loads: dict[int, Tensor] = field(default_factory=dict)
    dropped: dict[int, Tensor | int] = field(default_factory=dict)
    entropies: dict[int, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None

    def add(
        self, found: Terms, counts: Mapping[str, Tensor], *, entropies: bool = False
    ) -> Float[Tensor, ""]:
        """Add one micro-batch and return its share of the loss to be minimised.

        Args:
            found: the objective's terms.
            counts: of the whole batch.
            entropies: whether to measure the routers' entropies.
        """
        loss = 0.0
        for term in found.terms:
            part = term.total / counts[term.count]
            part = part if term.coefficient == 1.0 else part * term.coefficient
            self._report(term.name, part.detach())
            if part.requires_grad:
                loss = loss + part
        for layer in found.router_stats:
            before = self.loads.get(layer.layer)
            self.loads[layer.layer] = layer.load if before is None else before + layer.load
            self.dropped[layer.layer] = self.dropped.get(layer.layer, 0) + layer.dropped
            if entropies:
                found_here = torch.stack([layer.entropy * layer.tokens, layer.tokens])
                self.entropies[layer.layer] = self.entropies.get(layer.layer, 0) + found_here
        if found.rows is not None:
            before = self.rows
            self.rows = found.rows if before is None else torch.cat([before, found.rows], 1)
        return torch.as_tensor(loss)

    def summed(self, together: Together, norms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Add up what all processes found, in place, and return the norm of all gradients.

        Args:
            together: the processes.
            norms: of this process's part of each gradient, and the parameter it is of.
        """
        if self.rows is not None:
            self.rows = together.rows(self.rows)
        if together.pipeline is not None:
            self._complete(together)
        held = [torch.as_tensor(self.loss)]
        kinds: list[dict[Any, Any]] = [self.auxiliary, self.loads, self.dropped, self.entropies]
        for each in kinds:
            held += [torch.as_tensor(each[name]) for name in sorted(each)]
        found, square = together.total(held, norms, by_stage=True)
        read = iter(found)
        self.loss = next(read)
        for each in kinds:
            each.update({name: next(read) for name in sorted(each)})
        return square.sqrt()

    def _complete(self, together: Together) -> None:
        """Put zeros where other stages alone found something; take the last one's rows."""
        kinds: list[dict[Any, Any]] = [self.auxiliary, self.loads, self.dropped, self.entropies]
        own = [{n: torch.zeros_like(torch.as_tensor(v)) for n, v in k.items()} for k in kinds]
        for zeros, rows in together.ranks.gather((own, self.rows)):
            for each, there in zip(kinds, zeros, strict=True):
                for name, zero in there.items():
                    each.setdefault(name, zero)
            self.rows = rows if self.rows is None else self.rows

    def _report(self, name: str, value: Tensor) -> None:
        if name == "loss":
            self.loss = self.loss + value
        else:
            self.auxiliary[name] = self.auxiliary[name] + value if name in self.auxiliary else value
