"""What generation asks of a constraint."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import CoterieError
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

        Raises:
            UserError: it cannot be met with this tokenizer.
        """
        raise NotImplementedError


def build_all(
    settings: Iterable[ConstraintSettings], tokenizer: Tokenizer, prompt: Sequence[int]
) -> list[Constraint]:
    """Return the constraints of one text.

    Raises:
        UserError: one cannot be met with this tokenizer.
    """
    built = []
    for each in settings:
        with _named(each):
            built.append(each.build(tokenizer, prompt))
    return built


def mask_all(constraints: Iterable[Constraint], logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
    """Return the logits of the next token as constraints leave them, one after the other."""
    for constraint in constraints:
        with _named(constraint):
            masked = constraint.mask(logits)
            if not isinstance(masked, Tensor) or masked.shape != logits.shape:
                raise TypeError(f"mask gave no {len(logits):,} logits, but {masked!r:.80}")
            logits = masked
    return logits


def follow(constraints: Iterable[Constraint], token: int) -> None:
    """Tell constraints which token was chosen."""
    for constraint in constraints:
        with _named(constraint):
            constraint.accept(token)


@contextlib.contextmanager
def _named(constraint: object) -> Iterator[None]:
    """Note on an error which constraint it comes from: that may be anybody's code."""
    try:
        yield
    except CoterieError:
        raise
    except Exception as error:
        error.add_note(f"The constraint {type(constraint).__name__} failed.")
        raise
