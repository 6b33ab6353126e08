"""Tokenizers of the `tokenizers` library: byte-level BPE trained here, and any tokenizer.json.

Both are saved as a plain tokenizer.json, which other programs read too. Where the file describes
ordinary byte-level BPE, `merges` computes the same ids several times faster.
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import tokenizers

from coterie.foundation.compiled import compiled, without_traces
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.cuts import last_cut
from coterie.tokenizer.decoding import Recipe, TextDecoder, flat_steps, spelled_bytes
from coterie.tokenizer.interface import Tokenizer, refuse_surrogates
from coterie.tokenizer.merges import FastRules, fast_rules, keeps_text, splits_words
from coterie.tokenizer.special import with_end_of_text

_LONGEST_TEXT = 1 << 24  # characters encoded at once where nothing may be cut: 3 GB of memory
_LARGEST = 1 << 24  # token ids: ten times the largest published vocabulary


class SubwordTokenizer(Tokenizer):
    """Rules of the `tokenizers` library; texts end as its `Conventions` say."""

    kind: ClassVar[str] = "pieces"  # in files, which must stay readable

    def __init__(
        self,
        rules: tokenizers.Tokenizer,
        special_tokens: Iterable[str] = (),
        conventions: Conventions | None = None,
    ) -> None:
        """Take over `rules`, which must not be changed afterwards.

        Without conventions `END_OF_TEXT` ends texts and is added if the rules lack it.

        Raises:
            TokenizerError: a special token is empty or ambiguous, or the conventions name a token
                that the rules do not have.
        """
        rules.no_truncation()
        rules.no_padding()
        _add_special_tokens(rules, special_tokens, separator=conventions is None)
        self.conventions = conventions or Conventions()
        self._ends = [_number(rules, token) for token in self.conventions.ends]
        named = (self.conventions.begin, self.conventions.close, self.conventions.eos)
        begin, close, eos = (None if each is None else _number(rules, each) for each in named)
        self.begin_of_text, self.close_of_text = begin, close
        self._named_end = self._ends[0] if eos is None else eos
        self.chat_template = self.conventions.chat_template
        self._rules = rules
        self._json = rules.to_str()
        self._plain = _ignoring_special_tokens(self._json)
        description = json.loads(self._json)
        self._added = {token["id"]: token["content"] for token in description["added_tokens"]}
        self.special_tokens = {
            token["content"]: token["id"]
            for token in description["added_tokens"]
            if token["special"]
        }
        last = max(rules.get_vocab(with_added_tokens=True).values())
        self.vocab_size = min(last + 1, self.conventions.rows or last + 1)
        self._beyond = self.vocab_size <= last
        for token in [*self._ends, *filter(None, (begin, close, eos))]:
            self.check_token(token)
        unknown = _unknown_token(rules, description["model"])
        # Some name their separator as the unknown token, which never occurs.
        self.unknown_token = None if unknown in (*self._ends, self.begin_of_text) else unknown
        kinds = [each["type"] for each in flat_steps(description["decoder"])]
        self.joins_bytes = kinds == ["ByteLevel"]
        self.keeps_text = keeps_text(description)
        recipe = Recipe(description["decoder"])
        # As transformers does: for BPE it would remove blanks that belong to the text.
        cleans = self.conventions.cleans_up and description["model"]["type"] != "BPE"
        self._recipe = recipe.cleaned() if cleans else recipe
        self.splits_words = splits_words(description)
        if not self.splits_words:
            self.longest_word = _LONGEST_TEXT
        with compiled("The tokenizer's merges cannot be followed", TokenizerError):
            self._fast: FastRules | None = fast_rules(description)

    @property
    def end_of_text(self) -> int:
        return self._ends[0]

    @property
    def ends(self) -> frozenset[int]:
        return frozenset(self._ends)

    @property
    def named_end(self) -> int:
        return self._named_end

    def encode_array(self, text: str, *, special: bool = True) -> np.ndarray:
        refuse_surrogates(text)
        special = special and not self.conventions.splits_special
        tokens = self._encode(text, special=special)
        if self._beyond and tokens.max(initial=0) >= self.vocab_size:
            token = int(tokens.max())
            raise TokenizerError(
                f"The text holds {self.name_of(token)!r}, token {token:,}; the model knows only "
                f"{self.vocab_size:,} tokens.",
                hint="The model was made without this token; take it out of the text.",
            )
        return tokens

    def _encode(self, text: str, *, special: bool) -> np.ndarray:
        rules = self._rules if special else self._plain
        with compiled("The tokenizer cannot encode this text", TokenizerError):
            if self._fast is not None:
                fast = self._fast.encode(text, special=special)
                if fast is not None:
                    return fast
            # The batch call works without Python's lock and without computing offsets.
            encoding = rules.encode_batch_fast([text], add_special_tokens=False)[0]
        return np.array(encoding.ids, dtype=np.uint32)

    def token_bytes(self, token: int) -> bytes:
        """See `Tokenizer.token_bytes`; ids that the file leaves unassigned are empty."""
        self.check_token(token)
        if token in self._added:
            return self._added[token].encode("utf-8")
        piece = self._rules.id_to_token(token)
        if piece is None:
            return b""
        if self.joins_bytes:
            return spelled_bytes(piece)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])  # a byte in SentencePiece
        return piece.replace("▁", " ").encode("utf-8")

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """See `Tokenizer.decode`; files with a decoder of their own decide how pieces join."""
        if self.joins_bytes:
            return super().decode(tokens)
        decoder = self.text_decoder()
        return "".join([*(decoder.push(int(token)) for token in tokens), decoder.finish()])

    def text_decoder(self) -> TextDecoder:
        if self.joins_bytes:
            return super().text_decoder()
        return TextDecoder(self._piece, self._recipe.steps())

    def name_of(self, token: int) -> str:
        return self._rules.id_to_token(token) or ""

    def _piece(self, token: int) -> str | None:
        self.check_token(token)
        return self._rules.id_to_token(token)

    def cut(self, text: str, near: int) -> int | None:
        """See `Tokenizer.cut`; only where the file's rules are known to split words."""
        return last_cut(text, near, self._added.values()) if self.splits_words else None

    def extended(self, special_tokens: Iterable[str]) -> "SubwordTokenizer":
        fresh = self.new_special_tokens(special_tokens)
        if not fresh:
            return self
        rules = tokenizers.Tokenizer.from_str(self._json)
        return SubwordTokenizer(rules, fresh, self.conventions)

    def rules_json(self) -> dict[str, Any]:
        """Return the rules as a plain tokenizer.json, which does not say how texts end."""
        return json.loads(self._json)

    def to_json(self) -> dict[str, Any]:
        """See `Tokenizer.to_json`: a tokenizer.json, in an envelope if texts end otherwise."""
        if self.conventions == Conventions():
            return self.rules_json()
        return {"kind": self.kind, **self.conventions.to_json(), "rules": self.rules_json()}

    def limited(self, rows: int) -> "SubwordTokenizer":
        """Return the tokenizer of a model that knows only the first `rows` tokens.

        Raises:
            TokenizerError: tokens of ordinary text, or tokens that mark texts, lie beyond.
        """
        beyond = range(rows, max(self._rules.get_vocab(with_added_tokens=True).values()) + 1)
        ordinary = [self.name_of(n) for n in beyond if n not in self._added and self.name_of(n)]
        if ordinary:
            raise TokenizerError(
                f"The model knows {rows:,} tokens; {len(ordinary):,} ordinary ones of the "
                f"tokenizer lie beyond, the first {ordinary[0]!r}.",
                hint="The two do not belong together; get both from the same place.",
            )
        named = self.conventions.ends
        ends = tuple(end for end in named if _number(self._rules, end) < rows) or named
        conventions = replace(self.conventions, rows=rows, ends=ends)
        return SubwordTokenizer(tokenizers.Tokenizer.from_str(self._json), conventions=conventions)

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "SubwordTokenizer":
        """Return the tokenizer of a tokenizer.json, or of one in the envelope of `to_json`.

        Raises:
            TokenizerError: the library cannot read it.
        """
        conventions = None
        if "rules" in description:
            conventions = Conventions.from_json(description)
            description = description["rules"]
        return cls(read_rules(description), conventions=conventions)


def read_rules(description: dict[str, Any]) -> tokenizers.Tokenizer:
    """Return the rules of a tokenizer.json's content.

    Raises:
        TokenizerError: the library cannot read it.
    """
    with compiled("Not a tokenizer.json that can be read", TokenizerError), without_traces():
        rules = tokenizers.Tokenizer.from_str(json.dumps(description))
    check_rules(rules)
    return rules


# Every 15th character: whatever fails for some script fails here.
_PROBE = "".join(chr(code) for code in range(1, 0x11000, 15) if not 0xD800 <= code < 0xE000)


def check_rules(rules: tokenizers.Tokenizer) -> None:
    """Encode a text of many scripts and decode every token, so that a broken file fails early.

    Raises:
        TokenizerError: the library breaks down.
    """
    numbers = list(rules.get_vocab(with_added_tokens=True).values())
    if not numbers:
        raise TokenizerError("The tokenizer's vocabulary is empty.")
    if max(numbers) >= _LARGEST:
        raise TokenizerError(
            f"The tokenizer numbers a token {max(numbers):,}; no vocabulary reaches {_LARGEST:,}."
        )
    with compiled("The tokenizer breaks down on a text", TokenizerError), without_traces():
        with contextlib.suppress(Exception):  # not every vocabulary covers every text
            rules.encode(_PROBE, add_special_tokens=False)
        rules.encode("", add_special_tokens=True)
    with compiled("The tokenizer breaks down on its own tokens", TokenizerError), without_traces():
        rules.decode(numbers, skip_special_tokens=False)
        for number in numbers[:: len(numbers) // 64 + 1]:
            rules.decode([number], skip_special_tokens=False)


def _number(rules: tokenizers.Tokenizer, token: str) -> int:
    number = rules.token_to_id(token)
    if number is None:
        raise TokenizerError(f"The tokenizer has no token {token!r}, which should mark its texts.")
    return number


def _add_special_tokens(
    rules: tokenizers.Tokenizer, special_tokens: Iterable[str], *, separator: bool
) -> None:
    known = [t.content for t in rules.get_added_tokens_decoder().values() if t.special]
    wanted = with_end_of_text(special_tokens) if separator else list(special_tokens)
    fresh = [token for token in wanted if token not in known]
    if fresh:
        with_end_of_text([*known, *fresh])  # refuses what is ambiguous between old and new
        rules.add_special_tokens(
            [tokenizers.AddedToken(token, special=True, normalized=False) for token in fresh]
        )


def _ignoring_special_tokens(description: str) -> tokenizers.Tokenizer:
    """Return the same rules, which encode special tokens in a text as plain text."""
    plain = tokenizers.Tokenizer.from_str(description)
    plain.encode_special_tokens = True
    return plain


def _unknown_token(rules: tokenizers.Tokenizer, model: dict[str, Any]) -> int | None:
    if model.get("unk_id") is not None:  # Unigram gives the id
        return int(model["unk_id"])
    unknown = model.get("unk_token")
    return rules.token_to_id(unknown) if unknown else None
