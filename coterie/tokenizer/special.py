"""Special tokens: texts that always become one number of their own.

They mark what plain text cannot, such as the end of a document or a speaker's name. Where a text
holds one written out, `SpecialSplitter` finds it before the tokenizer's own rules see the rest.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from coterie.foundation.errors import TokenizerError

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unknown|>"


def check_special_tokens(special_tokens: Sequence[str]) -> None:
    """Refuse special tokens that could not be told apart or would break documents.

    Raises:
        TokenizerError: one is empty or blank, holds a line break, appears twice, or is the
            beginning of another.
    """
    for token in special_tokens:
        if not token.strip():
            raise TokenizerError(f"A special token must not be blank (got {token!r}).")
        if len(token.splitlines()) > 1 or token.splitlines()[0] != token:
            raise TokenizerError(f"The special token {token!r} must not hold a line break.")
    ordered = sorted(special_tokens)
    for first, second in itertools.pairwise(ordered):
        if first == second:
            raise TokenizerError(f"The special token {first!r} is named twice.")
        if second.startswith(first):
            raise TokenizerError(
                f"The special token {first!r} is the beginning of {second!r}: ambiguous.",
                hint="Rename one of them, for example by closing it with “>”.",
            )


class SpecialSplitter:
    """Splits a text into plain stretches and special tokens."""

    def __init__(self, special_tokens: dict[str, int]) -> None:
        self._tokens = dict(special_tokens)
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(token) for token in longest_first))

    def split(self, text: str) -> Iterator[str | int]:
        """Yield plain stretches as text and special tokens as their numbers, in order."""
        position = 0
        for match in self._pattern.finditer(text):
            if match.start() > position:
                yield text[position : match.start()]
            yield self._tokens[match.group()]
            position = match.end()
        if position < len(text):
            yield text[position:] if position else text


def with_end_of_text(special_tokens: Iterable[str]) -> list[str]:
    """Return special tokens with `END_OF_TEXT` first and none twice, checked."""
    tokens = list(dict.fromkeys([END_OF_TEXT, *special_tokens]))
    check_special_tokens(tokens)
    return tokens
