"""Forbidden texts: sequences of tokens that are never written to their end.

A text is forbidden as the tokenizer writes it; the same characters spelt by other tokens pass.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.constraints.interface import ConstraintSettings
from coterie.tokenizer.interface import Tokenizer


class Forbid(ConstraintSettings):
    """Never write any of these texts."""

    kind: Literal["forbid"] = "forbid"
    texts: tuple[str, ...] = Field(min_length=1, description="texts that are not to be written")

    @field_validator("texts", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def build(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> "ForbiddenSequences":
        """Return the constraint.

        Raises:
            UserError: the tokenizer makes nothing of one of the texts.
        """
        sequences = [tuple(tokenizer.encode(text)) for text in self.texts]
        for text, sequence in zip(self.texts, sequences, strict=True):
            if not sequence or tokenizer.unknown_token in sequence:
                raise UserError(f"The tokenizer cannot write “{text}”, so it cannot be forbidden.")
        return ForbiddenSequences(sequences, prompt)


class ForbiddenSequences:
    """Masks the last token of a sequence once all others have just been written."""

    def __init__(self, sequences: Sequence[tuple[int, ...]], past: Sequence[int]) -> None:
        self._sequences = tuple(sequences)
        longest = max(map(len, self._sequences))
        self._past = list(past[len(past) - longest + 1 :] if longest <= len(past) else past)

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits with −∞ where a sequence would be complete."""
        last = [each[-1] for each in self._sequences if self._is_about_to_end(each)]
        if not last:
            return logits
        return logits.index_fill(0, torch.tensor(last, device=logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        self._past.append(token)

    def rollback(self, count: int) -> None:
        if count:
            del self._past[-count:]

    def _is_about_to_end(self, sequence: tuple[int, ...]) -> bool:
        before = sequence[:-1]
        return not before or tuple(self._past[-len(before) :]) == before
