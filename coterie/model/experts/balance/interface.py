"""What a routed layer asks of its balance."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.part import Part


class BalancePart(Part):
    """A balance that does nothing; each kind overrides what it needs."""

    selection_bias: Tensor | None
    uses_loss: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("selection_bias", None)

    def loss(
        self, mean_probabilities: Float[Tensor, " E"], load: Int[Tensor, " E"]
    ) -> Float[Tensor, ""]:
        """Return a differentiable term, coefficient included.

        Args:
            mean_probabilities: the router's shares, averaged over valid tokens.
            load: valid pairs of each expert.
        """
        return mean_probabilities.new_zeros(())

    def update(self, load: Int[Tensor, " E"]) -> None:
        """Learn from the loads of a whole optimizer step."""
