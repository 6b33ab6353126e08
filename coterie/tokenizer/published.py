"""tiktoken's published encodings: `gpt2`, `cl100k_base` and `o200k_base`, without a network."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tiktoken
from pydantic import Field

from coterie.foundation.compiled import compiled
from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer, refuse_surrogates
from coterie.tokenizer.special import END_OF_TEXT, check_special_tokens
from coterie.tokenizer.tables import TABLES, load_ranks


class Tiktoken(Settings):
    """A published encoding of tiktoken."""

    kind: Literal["tiktoken"] = "tiktoken"
    encoding: Literal["gpt2", "cl100k_base", "o200k_base"] = Field(
        default="gpt2", description="Which published table: 50,257, 100,277 or 200,019 tokens."
    )
    special_tokens: tuple[str, ...] = Field(
        default=(), description="Further texts that become one token each."
    )

    def build(self, texts: Iterable[str] = ()) -> "TiktokenTokenizer":
        """Return the tokenizer; the texts are not needed.

        Raises:
            TokenizerError: the table is missing or damaged.
        """
        return TiktokenTokenizer(self.encoding, self.special_tokens)

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def mismatch(self, tokenizer: Tokenizer) -> str | None:
        wanted = self.build()
        same = wanted.fingerprint == tokenizer.fingerprint
        return None if same else f"{tokenizer!r} is not {wanted!r}"


class TiktokenTokenizer(Tokenizer):
    """A published encoding with, possibly, further special tokens numbered after its own."""

    kind: ClassVar[str] = "tiktoken"

    def __init__(self, encoding: str, extra: Iterable[str] = ()) -> None:
        if encoding not in TABLES:
            raise TokenizerError(
                f"There is no encoding “{encoding}” here; {nearest(encoding, TABLES)}"
            )
        table, ranks = TABLES[encoding], load_ranks(encoding)
        self.encoding = encoding
        self.extra = [token for token in extra if token not in table.special_tokens]
        check_special_tokens([*table.special_tokens, *self.extra])
        first = max(max(ranks.values()), *table.special_tokens.values()) + 1
        self.special_tokens = dict(table.special_tokens)
        self.special_tokens.update({token: first + i for i, token in enumerate(self.extra)})
        self.vocab_size = first + len(self.extra)
        self._rules = tiktoken.Encoding(
            name=encoding,
            pat_str=table.pattern,
            mergeable_ranks=ranks,
            special_tokens=self.special_tokens,
        )

    def encode_array(self, text: str, *, special: bool = True) -> np.ndarray:
        allowed = self._rules.special_tokens_set if special else frozenset()
        refuse_surrogates(text)
        with compiled(
            f"The encoding {self.encoding} gave up on a text of {len(text):,} characters, as on a "
            "very long run of blanks or line breaks",
            TokenizerError,
            hint="Shorten the run, or use the tokenizer “bytes” or “characters”.",
        ):
            return self._rules.encode_to_numpy(text, allowed_special=allowed, disallowed_special=())

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See `Tokenizer.encode_arrays`: one call, with the separator between the texts.

        A call for each would take Python's lock twice for a text that may be of a few words.
        """
        if any(END_OF_TEXT in text for text in texts):
            return super().encode_arrays(texts)
        tokens = self.encode_array(END_OF_TEXT.join(texts))
        ends = np.flatnonzero(tokens == self.end_of_text)
        if len(ends) != len(texts) - 1:  # a special token of the user's own reaches across one
            return super().encode_arrays(texts)
        bounds = [-1, *ends.tolist(), len(tokens)]
        return [tokens[begin + 1 : end] for begin, end in itertools.pairwise(bounds)]

    def token_bytes(self, token: int) -> bytes:
        """See `Tokenizer.token_bytes`; numbers that the encoding leaves unassigned are empty."""
        self.check_token(token)
        try:
            return self._rules.decode_single_token_bytes(token)
        except KeyError:
            return b""  # cl100k_base and o200k_base leave gaps before their last special token

    def extended(self, special_tokens: Iterable[str]) -> "TiktokenTokenizer":
        fresh = self.new_special_tokens(special_tokens)
        return TiktokenTokenizer(self.encoding, [*self.extra, *fresh]) if fresh else self

    def to_json(self) -> dict[str, Any]:
        """See `Tokenizer.to_json`: the table is named by its checksum, not copied."""
        return {
            "kind": self.kind,
            "encoding": self.encoding,
            "table_sha256": TABLES[self.encoding].sha256,
            "extra_special_tokens": self.extra,
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "TiktokenTokenizer":
        """Return the tokenizer that `to_json` described.

        Raises:
            TokenizerError: it was made with another table.
        """
        tokenizer = cls(description["encoding"], description["extra_special_tokens"])
        if description["table_sha256"] != TABLES[tokenizer.encoding].sha256:
            raise TokenizerError(
                f"This tokenizer was made with another table of {tokenizer.encoding} "
                f"({description['table_sha256'][:12]}…)."
            )
        return tokenizer
