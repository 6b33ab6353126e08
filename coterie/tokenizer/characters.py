"""One token per character, the vocabulary being the characters of the user's own text.

The smallest vocabulary there is (65 for plain English) and the easiest to look at. A character that
was not in the text becomes the special token `<|unknown|>`; preparing data counts them.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from coterie.foundation.errors import TokenizerError
from coterie.foundation.settings import Settings
from coterie.tokenizer.cuts import last_place_outside
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.special import (
    UNKNOWN,
    SpecialSplitter,
    check_special_tokens,
    with_end_of_text,
)


class Characters(Settings):
    """One token per distinct character of the text."""

    kind: Literal["characters"] = "characters"
    special_tokens: tuple[str, ...] = Field(
        default=(), description="Further texts that become one token each."
    )

    def build(self, texts: Iterable[str] = ()) -> "CharacterTokenizer":
        """Collect the characters of the texts into a tokenizer.

        Raises:
            TokenizerError: the texts are empty.
        """
        specials = with_end_of_text([UNKNOWN, *self.special_tokens])
        splitter = SpecialSplitter(dict.fromkeys(specials, 0))
        alphabet: set[str] = set()
        for text in texts:
            for stretch in splitter.split(text):
                if isinstance(stretch, str):
                    alphabet.update(stretch)
        alphabet = {character for character in alphabet if not "\ud800" <= character <= "\udfff"}
        if not alphabet:
            raise TokenizerError("There is no text to take the characters from.")
        return CharacterTokenizer("".join(sorted(alphabet)), specials)

    def identity(self) -> dict[str, Any]:
        """Return what decides the tokenizer that these settings build, given the text."""
        return self.model_dump(mode="json")

    def mismatch(self, tokenizer: Tokenizer) -> str | None:
        if not isinstance(tokenizer, CharacterTokenizer):
            return f"{tokenizer!r} is not of the kind “{self.kind}”"
        missing = [text for text in self.special_tokens if text not in tokenizer.special_tokens]
        return f"it lacks the special tokens {', '.join(missing)}" if missing else None


class CharacterTokenizer(Tokenizer):
    """Numbers characters by their place in `alphabet`, special tokens after them."""

    kind: ClassVar[str] = "characters"

    def __init__(self, alphabet: str, special_tokens: Iterable[str]) -> None:
        specials = list(special_tokens)
        check_special_tokens(specials)
        self.alphabet = alphabet
        self.special_tokens = {token: len(alphabet) + i for i, token in enumerate(specials)}
        self.unknown_token = self.special_tokens[UNKNOWN]
        self.vocab_size = len(alphabet) + len(specials)
        self._pieces = [text.encode("utf-8") for text in [*alphabet, *specials]]
        self._splitter = SpecialSplitter(self.special_tokens)
        # One table look-up per character: the index is the code point.
        codes = np.array([ord(character) for character in alphabet], dtype=np.int64)
        self._table = np.full(int(codes.max(initial=0)) + 2, self.unknown_token, dtype=np.uint32)
        self._table[codes] = np.arange(len(alphabet), dtype=np.uint32)

    def encode_array(self, text: str, *, special: bool = True) -> np.ndarray:
        """See `Tokenizer.encode_array`; unknown characters become `unknown_token`."""
        if not special:
            return self._encode_plain(text)
        parts = [
            np.array([part], dtype=np.uint32) if isinstance(part, int) else self._encode_plain(part)
            for part in self._splitter.split(text)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)

    def _encode_plain(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        # Code points above the table all land on its last entry, which says “unknown”.
        return self._table.take(codes, mode="clip")

    def token_bytes(self, token: int) -> bytes:
        """See `Tokenizer.token_bytes`; always whole characters."""
        self.check_token(token)
        return self._pieces[token]

    def cut(self, text: str, near: int) -> int | None:
        """See `Tokenizer.cut`; any place outside special tokens serves."""
        return last_place_outside(text, near, self.special_tokens)

    def extended(self, special_tokens: Iterable[str]) -> "CharacterTokenizer":
        fresh = self.new_special_tokens(special_tokens)
        return CharacterTokenizer(self.alphabet, [*self.special_tokens, *fresh]) if fresh else self

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "alphabet": self.alphabet,
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "CharacterTokenizer":
        return cls(description["alphabet"], description["special_tokens"])
