"""Prompt look-up: what followed the text's latest tokens when they last stood in it.

No model is asked. It pays where texts repeat themselves or their prompt: code, edits, names.
(Saxena 2023, “Prompt Lookup Decoding”, github.com/apoorvumang/prompt-lookup-decoding.)
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from coterie.generate.speculation.interface import Read, SpeculationSettings
from coterie.model import Decoder


class LookupSpeculation(SpeculationSettings):
    """Guess what followed the latest tokens when they last stood in the text."""

    kind: Literal["lookup"] = "lookup"
    tokens: int = Field(default=6, ge=1, le=64, description="the most tokens of one guess")
    longest: int = Field(default=4, ge=1, le=16, description="the most latest tokens to look for")
    shortest: int = Field(
        default=2, ge=1, le=16, description="the fewest latest tokens worth looking for"
    )

    @model_validator(mode="after")
    def _from_short_to_long(self) -> "LookupSpeculation":
        if self.shortest > self.longest:
            raise ValueError(f"shortest={self.shortest} is more than longest={self.longest}")
        return self

    @property
    def most(self) -> int:
        return self.tokens

    def build(self, decoder: Decoder) -> "Lookup":
        return Lookup(self.shortest, self.longest, self.tokens)


class Lookup:
    """Finds the latest tokens in the text before them, the longest match and the latest first."""

    def __init__(self, shortest: int, longest: int, tokens: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._tokens = tokens
        self._after: dict[tuple[int, ...], int] = {}  # where the latest match of an n-gram ends
        self._indexed = 0  # ends of n-grams up to here are known

    def draft(self, past: Sequence[int], most: int, read: Read) -> list[int]:
        for end in range(self._indexed + 1, len(past)):
            for size in self._sizes:
                if size <= end:
                    self._after[tuple(past[end - size : end])] = end
        self._indexed = max(len(past) - 1, 0)
        count = min(most, self._tokens)
        for size in self._sizes:
            end = self._after.get(tuple(past[-size:])) if size <= len(past) else None
            if end is not None:
                period = len(past) - end  # a match that reaches the end goes round
                return [past[end + place % period] for place in range(count)]
        return []
