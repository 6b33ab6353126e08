"""What the decoder asks of an embedding module."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.part import Part

Ids = Int[Tensor, "B T"]
Recent = Int[Tensor, "B n"] | None
Places = Int[Tensor, "B T"] | None
Vectors = Float[Tensor, "B T D"]


class EmbeddingPart(Part, ABC):
    """Base of embedding modules."""

    lookback: int = 0

    @abstractmethod
    def forward(self, tokens: Ids, recent: Recent = None, places: Places = None) -> Vectors:
        """Return the tokens' vectors.

        Args:
            recent: up to `lookback` tokens that came just before, −1 where a row has none; None at
                the start of a text.
            places: of each token in its document, where rows hold several; none reads another.
        """

    @abstractmethod
    def tied(
        self, hidden: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N R"], Float[Tensor, "V R"]]:
        """Return what a tied head multiplies: hidden states and a matrix over the vocabulary."""
