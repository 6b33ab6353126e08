"""The routers' own terms: load balancing loss, z-loss, entropy.

Each layer's term is a mean over the valid tokens of a micro-batch, so its total is that mean times
those tokens: a term linear in the tokens (z) comes out the same for any cut. The layers are
averaged, which keeps a coefficient's meaning when layers are added: with uniform routing the
balance term is the coefficient itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch

from coterie.model import RouterStats
from coterie.train.objective.interface import Term


def router_terms(routing: Sequence[RouterStats], count_of: Callable[[int], str]) -> Iterator[Term]:
    """Yield the terms `balance`, `z` and `entropy` of a micro-batch, none without routed layers.

    Args:
        routing: of each routed layer.
        count_of: returns the name of the count of a layer's valid tokens, by its index.
    """
    alike: dict[str, list[RouterStats]] = defaultdict(list)
    for layer in routing:
        alike[count_of(layer.layer)].append(layer)
    for count, layers in alike.items():
        terms = {
            "balance": [layer.auxiliary for layer in layers],
            "z": [layer.z for layer in layers],
            "entropy": [layer.entropy_term for layer in layers],
        }
        for name, means in terms.items():
            total = torch.stack(means).sum() * layers[0].tokens
            yield Term(name, total, count, 1 / len(routing))
