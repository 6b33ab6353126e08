"""Routing replay: a second pass over the same tokens repeats the first one's decisions exactly.

Activation checkpointing computes a block again in the backward pass, where rounding could send a
token near a tie to another expert; and it must not count the tokens twice. In reinforcement a text
is written by one pass and learned from by another, whose routers would disagree with the first's
here and there: there the choices of the first are given to the second (Ma et al. 2025,
arXiv:2510.11370).
"""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor


class RoutingReplay:
    """What a layer's first pass decided.

    Attributes:
        indices: the experts of each token; None: there was no pass yet.
        balance_load: the load that the load balancing loss went by.
        compares: whether a pass that repeats fills in `own`.
        own: the experts that the router would have chosen in the second pass.
    """

    def __init__(
        self, indices: Int[Tensor, "N k"] | None = None, *, compares: bool = False
    ) -> None:
        self.indices = indices
        self.balance_load: Int[Tensor, " E"] | None = None
        self.compares = compares
        self.own: Int[Tensor, "N k"] | None = None


Routes = Sequence[RoutingReplay]
"""Of each layer of a decoder; those without a router leave theirs alone."""
