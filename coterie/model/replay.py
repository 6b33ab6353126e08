"""Routing replay: a second pass over the same tokens repeats the first one's decisions exactly.

Activation checkpointing computes a block again in the backward pass, where rounding could send a
token near a tie to another expert; and it must not count the tokens twice.
"""

from jaxtyping import Int
from torch import Tensor


class RoutingReplay:
    """What a layer's first pass decided.

    Attributes:
        indices: the experts of each token; None: there was no pass yet.
        balance_load: the load that the load balancing loss went by.
    """

    def __init__(self) -> None:
        self.indices: Int[Tensor, "N k"] | None = None
        self.balance_load: Int[Tensor, " E"] | None = None
