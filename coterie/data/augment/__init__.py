"""Augmentations: transforms of the rows of a training batch.

A member has `build(tokenizer, draws)`, which returns an `Augmentation`. Evaluation has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws
from coterie.data.augment.token_dropout import TokenDropout
from coterie.foundation.settings import union
from coterie.tokenizer.interface import Tokenizer

Augment = Annotated[TokenDropout, union(TokenDropout)]


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


def augmentations(
    settings: Sequence[Augment], tokenizer: Tokenizer, seed: int
) -> tuple[Augmentation, ...]:
    """Return what the settings describe, each with random numbers of its own.

    Raises:
        SettingsError: the tokenizer lacks a token that they name.
    """
    return tuple(each.build(tokenizer, Draws(seed, number)) for number, each in enumerate(settings))
