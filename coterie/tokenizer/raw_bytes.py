"""One token per byte of UTF-8: 256 tokens cover every text, no training needed."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from coterie.foundation.settings import Settings
from coterie.tokenizer.cuts import last_place_outside
from coterie.tokenizer.interface import Tokenizer, refuse_surrogates
from coterie.tokenizer.special import SpecialSplitter, check_special_tokens, with_end_of_text


class Bytes(Settings):
    """One token per UTF-8 byte."""

    kind: Literal["bytes"] = "bytes"
    special_tokens: tuple[str, ...] = Field(
        default=(), description="Further texts that become one token each."
    )

    def build(self, texts: Iterable[str] = ()) -> "ByteTokenizer":
        """Return the tokenizer; the texts are not needed."""
        return ByteTokenizer(with_end_of_text(self.special_tokens))

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def mismatch(self, tokenizer: Tokenizer) -> str | None:
        wanted = self.build()
        same = wanted.fingerprint == tokenizer.fingerprint
        return None if same else f"{tokenizer!r} is not {wanted!r}"


class ByteTokenizer(Tokenizer):
    """Numbers bytes by their value, special tokens from 256 on."""

    kind: ClassVar[str] = "bytes"

    def __init__(self, special_tokens: Iterable[str]) -> None:
        specials = list(special_tokens)
        check_special_tokens(specials)
        self.special_tokens = {token: 256 + i for i, token in enumerate(specials)}
        self.vocab_size = 256 + len(specials)
        self._specials = [token.encode("utf-8") for token in specials]
        self._splitter = SpecialSplitter(self.special_tokens)

    def encode_array(self, text: str, *, special: bool = True) -> np.ndarray:
        parts = self._splitter.split(text) if special else [text]
        arrays = [
            np.array([part], dtype=np.uint32) if isinstance(part, int) else _bytes_of(part)
            for part in parts
        ]
        if len(arrays) == 1:
            return arrays[0]
        return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint32)

    def token_bytes(self, token: int) -> bytes:
        self.check_token(token)
        return bytes([token]) if token < 256 else self._specials[token - 256]

    def cut(self, text: str, near: int) -> int | None:
        """See `Tokenizer.cut`; any place outside special tokens serves."""
        return last_place_outside(text, near, self.special_tokens)

    def extended(self, special_tokens: Iterable[str]) -> "ByteTokenizer":
        fresh = self.new_special_tokens(special_tokens)
        return ByteTokenizer([*self.special_tokens, *fresh]) if fresh else self

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "special_tokens": list(self.special_tokens)}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "ByteTokenizer":
        return cls(description["special_tokens"])


def _bytes_of(text: str) -> np.ndarray:
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError as error:
        refuse_surrogates(text, error)
        raise
    return np.frombuffer(encoded, dtype=np.uint8).astype(np.uint32)
