"""What generation asks of a way to guess tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from coterie.foundation.settings import Settings


@runtime_checkable
class Drafter(Protocol):
    """Guesses the next tokens of one text."""

    def draft(self, past: Sequence[int], most: int) -> list[int]:
        """Return at most so many tokens that may come next; none where it has no idea.

        Args:
            past: the tokens so far, prompt included; they only ever grow.
            most: of the tokens to return.
        """
        ...


class SpeculationSettings(Settings):
    """Base of the settings of ways to guess."""

    @property
    def most(self) -> int:
        """The most tokens of one guess, which a cache must be able to take back."""
        return 0

    def build(self) -> Drafter | None:
        """Return what guesses for one text; None: nothing does."""
        return None
