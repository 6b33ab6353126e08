"""What all augmentations share: their settings' base, and what a built one does."""

from __future__ import annotations

from typing import ClassVar, Protocol

from pydantic import Field

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws
from coterie.data.ramp import Share
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer


class Augmentation(Protocol):
    """A pure function of each row and of (seed, step, number of the row)."""

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        """Return the batch with other rows, as many as before.

        Args:
            batch: in the CPU's memory.
            step: whose batch it is.
            first_row: which row of the whole batch, over all ranks, the first one is.
        """
        ...


class Augmenting(Settings):
    """The settings of an augmentation.

    Attributes:
        reorders: whether it puts tokens into another order, so that targets are what follows there;
            it must see the text before anything else was put in its place.
        replaces: whether it puts others in the place of tokens, or takes targets away.
    """

    reorders: ClassVar[bool] = False
    replaces: ClassVar[bool] = True

    share: Share = Field(default=0.1, description="how much of the batch it changes, 0 to 1")
    seed: int = Field(default=0, description="of its random numbers, beside the run's")

    @property
    def streams(self) -> int:
        """How many random numbers it draws for each token."""
        return 1

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        """Return the augmentation.

        Raises:
            SettingsError: the tokenizer lacks what it needs.
        """
        raise NotImplementedError
