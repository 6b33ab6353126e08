"""One branch after the other: the feed-forward branch reads what attention has added.

Pre-norm residual blocks: Radford et al. 2019 (GPT-2); Xiong et al. 2020, arXiv:2002.04745.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.block_layout.interface import BlockLayoutPart, Branches
from coterie.model.costs import Count
from coterie.model.experts import RouterStats


class Sequential(Settings):
    """Settings of the sequential layout."""

    kind: Literal["sequential"] = "sequential"

    @property
    def shares_norm(self) -> bool:
        """Whether both branches read one normalised input."""
        return False

    def build(self, width: int) -> "SequentialPart":
        return SequentialPart()

    def counts(self, width: int) -> tuple[Count, ...]:
        """Return the counts of its own parameters: there are none."""
        return ()


class SequentialPart(BlockLayoutPart):
    """x + attention(norm(x)), and then the same with the feed-forward branch."""

    def forward(
        self, x: Float[Tensor, "B T D"], branches: Branches
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        assert branches.feedforward_norm is not None
        x = x + branches.attention(branches.attention_norm(x))
        update, stats = branches.feedforward(branches.feedforward_norm(x))
        return x + update, stats
