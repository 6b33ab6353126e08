"""What every tokenizer can do: encode, decode, name its special tokens, describe itself completely.

A tokenizer is immutable. Its JSON description holds everything that decides its behaviour, so the
description's SHA-256 (the fingerprint) tells whether two tokenizers are the same one.
"""

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from coterie.foundation.errors import SettingsError, TokenizerError, nearest
from coterie.tokenizer.cuts import last_cut
from coterie.tokenizer.decoding import TextDecoder, Utf8
from coterie.tokenizer.special import END_OF_TEXT, check_special_tokens


class Tokenizer(ABC):
    """Turns text into token numbers and back.

    Attributes:
        kind: the name under which the tokenizer is saved.
        vocab_size: one more than the largest token number.
        special_tokens: text of each special token and its number; `END_OF_TEXT` is always there,
            unless the tokenizer came from elsewhere and ends texts with tokens of its own.
        begin_of_text: the token that every text begins with, if the tokenizer has such a one.
        close_of_text: the token put after every text, if its makers' tokenizer does so.
        chat_template: how a conversation is written for a model of this tokenizer, a Jinja
            template, if it came with one.
        unknown_token: the number that stands for what the vocabulary cannot say, if there is one.
        joins_bytes: whether decoding is the plain concatenation of `token_bytes`.
        splits_words: whether long texts have places where they may be cut; see `cut`.
        longest_word: how many characters without a place to cut are encoded at most.
        keeps_text: whether decoding returns every text as it was encoded, unknown characters aside.
    """

    kind: ClassVar[str]
    vocab_size: int
    special_tokens: dict[str, int]
    unknown_token: int | None = None
    begin_of_text: int | None = None
    close_of_text: int | None = None
    chat_template: str | None = None
    joins_bytes: bool = True
    splits_words: bool = True
    longest_word: int = 1 << 22  # 40 bytes of memory for each character
    keeps_text: bool = True

    @abstractmethod
    def encode_array(self, text: str, *, special: bool = True) -> np.ndarray:
        """Return the token numbers of a text, uint32 [T].

        Args:
            text: any text without lone surrogates.
            special: whether special tokens written out in the text become their own number;
                otherwise they are plain text.

        Raises:
            TokenizerError: the text cannot be encoded.
        """

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token numbers of several texts, each as `encode_array` gives them.

        Raises:
            TokenizerError: one cannot be encoded.
        """
        return [self.encode_array(text) for text in texts]

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token; they may be part of a character.

        Raises:
            TokenizerError: the number lies outside the vocabulary.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the complete description, from which `load_tokenizer` makes an equal one."""

    @abstractmethod
    def extended(self, special_tokens: Iterable[str]) -> "Tokenizer":
        """Return a tokenizer that knows further special tokens, numbered after all others.

        Raises:
            TokenizerError: a special token is empty, ambiguous or holds a line break.
        """

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token numbers of a text as a list; see `encode_array`."""
        return self.encode_array(text, special=special).tolist()

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Return the text of token numbers; bytes that are no whole character become U+FFFD.

        Raises:
            TokenizerError: a number lies outside the vocabulary.
        """
        return b"".join(self.token_bytes(int(token)) for token in tokens).decode("utf-8", "replace")

    def text_decoder(self) -> TextDecoder:
        """Return what turns the tokens of one text into text as they come; `decode` in steps."""
        return TextDecoder(self.token_bytes, [Utf8()])

    def cut(self, text: str, near: int) -> int | None:
        """Return the last place up to `near` where the text may be cut without changing its tokens.

        Encoding both sides one after the other gives exactly the tokens of the whole; see `cuts`.

        Returns:
            The place, or `None` where none is known near it.
        """
        return last_cut(text, near, self.special_tokens)

    @property
    def end_of_text(self) -> int:
        """The number of the token that separates documents."""
        return self.special_tokens[END_OF_TEXT]

    @property
    def ends(self) -> frozenset[int]:
        """The tokens with which a model ends its text, `end_of_text` among them."""
        return frozenset({self.end_of_text})

    @property
    def start_of_text(self) -> int:
        """The token after which a text begins: the one for that, or the separator."""
        return self.end_of_text if self.begin_of_text is None else self.begin_of_text

    @property
    def named_end(self) -> int:
        """The one of `ends` that files name as the end of a text."""
        return self.end_of_text

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """Return a text's tokens between those that begin and close it, neither put twice."""
        before, after = self.begin_of_text, self.close_of_text
        first = [] if before is None or list(tokens[:1]) == [before] else [before]
        last = [] if after is None or list(tokens[-1:]) == [after] else [after]
        return [*first, *tokens, *last]

    def name_of(self, token: int) -> str:
        """Return the text under which files name a token."""
        return self.token_bytes(token).decode("utf-8", "replace")

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON description: equal tokenizers, equal fingerprints."""
        return fingerprint_of(self.to_json())

    def single_token(self, text: str, setting: str) -> int:
        """Return the one token that a text is, which is usually a special one.

        Args:
            setting: its key, for the message.

        Raises:
            SettingsError: it is several tokens, or an unknown one.
        """
        tokens = self.encode(text)
        if len(tokens) != 1 or tokens[0] == self.unknown_token:
            raise SettingsError(
                f"{setting}=“{text}” is no single token of the tokenizer; "
                f"{nearest(text, self.special_tokens)}",
                hint="Name it in tokenizer.special_tokens, or one that is there.",
            )
        return tokens[0]

    def check_token(self, token: int) -> None:
        """Raise a `TokenizerError` for a number outside the vocabulary."""
        if not 0 <= token < self.vocab_size:
            raise TokenizerError(
                f"Token {token} is outside this tokenizer's vocabulary (0 … {self.vocab_size - 1})."
            )

    def new_special_tokens(self, special_tokens: Iterable[str]) -> list[str]:
        """Return the special tokens that are new, after checking all of them."""
        fresh = [token for token in special_tokens if token not in self.special_tokens]
        check_special_tokens([*self.special_tokens, *fresh])
        return fresh

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return int(self.fingerprint[:16], 16)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.vocab_size:,} tokens, {self.fingerprint[:12]}>"


def fingerprint_of(description: dict[str, Any]) -> str:
    """Return the SHA-256 of a description in canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def refuse_surrogates(text: str, error: UnicodeEncodeError | None = None) -> None:
    """Raise a `TokenizerError` that names the lone surrogate which UTF-8 cannot encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as found:
        raise TokenizerError(
            f"The text holds half of a surrogate pair (U+{ord(text[found.start]):04X}) at "
            f"character {found.start}, which is no character.",
            hint="Repair the text where it was written, or leave this document out.",
        ) from (error or found)
