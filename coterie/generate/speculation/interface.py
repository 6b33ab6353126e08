"""What generation asks of a way to guess tokens."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model import Decoder

Read = Callable[[], tuple[Tensor | None, bool]]
"""Returns hidden states [n, D], None where there are none, and whether they begin anew."""


@runtime_checkable
class Drafter(Protocol):
    """Guesses the next tokens of one text."""

    def draft(self, past: Sequence[int], most: int, read: Read) -> list[int]:
        """Return at most so many tokens that may come next; none where it has no idea.

        Args:
            past: the tokens so far, prompt included; they only ever grow.
            most: of the tokens to return.
            read: returns what the last block made of all tokens but the latest since this was last
                asked, where the settings `watch`.
        """
        ...


class SpeculationSettings(Settings):
    """Base of the settings of ways to guess."""

    @property
    def most(self) -> int:
        """The most tokens of one guess, which a cache must be able to take back."""
        return 0

    @property
    def watches(self) -> bool:
        """Whether hidden states are read."""
        return False

    def build(self, decoder: Decoder) -> Drafter | None:
        """Return what guesses for one text; None: nothing does.

        Raises:
            UserError: this model cannot guess so.
        """
        return None
