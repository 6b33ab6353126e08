"""What a router asks of its selection.

A selector returns [N, k] experts. Where a token goes to fewer than k, the places left over hold the
number of experts, which is no expert: nothing is computed there and the gate is zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

Scores = Float[Tensor, "N E"]
Bias = Float[Tensor, " E"] | None
Chosen = Int[Tensor, "N k"]
Shares = Callable[[Tensor], Tensor]
"""Turns scores [N, E] into shares of one."""


class Selector(ABC):
    """Chooses experts.

    Attributes:
        experts_per_token: at most how many for a token, k.
        fixed: whether every token goes to exactly k.
        entropy: coefficient of the mean entropy of the router's shares in what is minimised.
    """

    fixed: bool = True
    entropy: float = 0.0

    def __init__(self, experts_per_token: int) -> None:
        self.experts_per_token = experts_per_token

    @abstractmethod
    def __call__(self, scores: Scores, selection_bias: Bias, shares: Shares) -> Chosen:
        """Return the selected experts of each token, best first, without a gradient.

        Args:
            selection_bias: added to the scores for the choice alone, never to the gates; −∞ for an
                excluded expert.
            shares: how scores become shares of one.
        """
