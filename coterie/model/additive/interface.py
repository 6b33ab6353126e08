"""What the decoder asks of additive embeddings, and their settings of whoever builds them."""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.part import Part
from coterie.model.position import Span


class AdditiveSettings(Settings):
    """Base of the settings of additive embeddings."""

    def tags(self) -> dict[str, str]:
        """Return the texts that must each be one token, by the name of their setting."""
        return {}

    def with_ids(self, ids: Mapping[str, int]) -> "AdditiveSettings":
        """Return the settings with the token of each such text filled in."""
        return self

    def build(self, width: int) -> "AdditivePart":
        """Return the module for a stream of this width."""
        raise NotImplementedError

    def counts(self, width: int) -> Count:
        """Return its count."""
        raise NotImplementedError


class AdditivePart(Part):
    """Base of additive embeddings."""

    def vectors(
        self, tokens: Int[Tensor, "B T"], span: Span, state: Tensor | None = None
    ) -> tuple[Float[Tensor, "*B T D"], Tensor | None]:
        """Return what is added to the tokens' vectors, and what the next call needs to know.

        Args:
            state: [B, …], what the call before returned for the same rows; None at their start.
        """
        raise NotImplementedError
