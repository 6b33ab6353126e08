"""What generation asks of a constraint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer


@runtime_checkable
class Constraint(Protocol):
    """The constraint of one text in the making."""

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits of the next token, −∞ where it may not follow; the input stays."""
        ...

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        ...

    def rollback(self, count: int) -> None:
        """Take the last `count` accepted tokens back."""
        ...


class ConstraintSettings(Settings):
    """Base of the constraints' settings."""

    def build(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> Constraint:
        """Return the constraint of one text.

        Args:
            tokenizer: the model's.
            prompt: the tokens that the text goes on from.

        Raises:
            UserError: it cannot be met with this tokenizer.
        """
        raise NotImplementedError


def follow(constraints: Iterable[Constraint], token: int) -> None:
    """Tell constraints which token was chosen."""
    for constraint in constraints:
        constraint.accept(token)
