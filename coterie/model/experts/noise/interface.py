"""What a router asks of its noise."""

from jaxtyping import Float
from torch import Tensor

from coterie.model.part import Part


class NoisePart(Part):
    """No noise; each kind overrides what it needs and does nothing outside training mode."""

    def inputs(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return what the router reads instead of the tokens."""
        return x

    def logits(self, logits: Float[Tensor, "N E"], x: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Return the logits that scores are made of.

        Args:
            x: the tokens, in the type of the logits.
        """
        return logits
