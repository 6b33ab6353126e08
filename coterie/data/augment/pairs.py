"""Words in the place of others: archaic and modern ones, or other spellings (`language.pairs`).

Words are found as sequences of tokens, in small letters and with a capital, and whole: neither side
may go on with a letter. Targets stay the text's own; inside a word that was put in, nothing is
predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws, shape_of
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.augment.rows import PADDING, ranges, rewritten
from coterie.data.augment.words import Words, token_texts
from coterie.data.ramp import Share, value_at
from coterie.language.pairs import Table, pairs_of, reversed_pairs
from coterie.tokenizer.interface import Tokenizer

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Pairs(Augmenting):
    """Write words as their counterparts in a table."""

    kind: Literal["pairs"] = "pairs"
    share: Share = Field(default=0.1, description="share of the words of the table replaced")
    table: Table = Field(default="archaic", description="archaic words, or orthography")
    to: Literal["usual", "other", "both"] = Field(
        default="both", description="which form replaces the other one"
    )

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        pairs = pairs_of(self.table)
        chosen: dict[str, str] = {}
        if self.to != "usual":
            chosen |= reversed_pairs(pairs)
        if self.to != "other":
            chosen |= pairs
        return _Pairs(self.share, _Counterparts(_sequences(tokenizer, chosen)), tokenizer, draws)


def _sequences(tokenizer: Tokenizer, pairs: dict[str, str]) -> dict[tuple[int, ...], list[int]]:
    """Return the tokens of each word as it may stand in a text, and those of its counterpart."""

    def encoded(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, special=False))

    found = {}
    for word, other in _forms(pairs):
        for before in ("", " "):
            sequence, counterpart = encoded(before + word), encoded(before + other)
            missing = tokenizer.unknown_token in (*sequence, *counterpart)
            # Where the blank is a token of its own, the word without it is enough.
            if not missing and not (before and sequence == encoded(before) + encoded(word)):
                found[sequence] = list(counterpart)
    return found


def _forms(pairs: dict[str, str]) -> Iterator[tuple[str, str]]:
    for word, other in pairs.items():
        yield word, other
        if word[0].isalpha():
            yield word[0].upper() + word[1:], other[0].upper() + other[1:]


class _Counterparts:
    """Sequences of tokens, found by hash and compared, and what stands for them.

    Attributes:
        longest: tokens of the longest.
        pool: what stands for them, one after another.
    """

    def __init__(self, sequences: dict[tuple[int, ...], list[int]]) -> None:
        self.longest = max(map(len, sequences))
        keys = np.full((len(sequences), self.longest), PADDING)
        for row, key in zip(keys, sequences, strict=True):
            row[: len(key)] = key
        order = np.argsort(_hashes(keys))
        parts = list(sequences.values())
        self._keys, self._hashes = keys[order], _hashes(keys)[order]
        self._counts = np.array([len(parts[which]) for which in order])
        self._begins = self._counts.cumsum() - self._counts
        self.pool = np.concatenate([parts[which] for which in order])

    def find(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which words there are here, where in the pool what stands for them begins, counts.

        Args:
            words: one a row, padded to the longest.
        """
        which = self._hashes.searchsorted(_hashes(words)).clip(max=len(self._hashes) - 1)
        found = (self._keys[which] == words).all(axis=1).nonzero()[0]
        return found, self._begins[which[found]], self._counts[which[found]]


def _hashes(rows: np.ndarray) -> np.ndarray:
    result = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T.astype(np.uint64):
        result = (result ^ column) * _MULTIPLIER
    return result


class _Pairs:
    def __init__(
        self, share: Share, counterparts: _Counterparts, tokenizer: Tokenizer, draws: Draws
    ) -> None:
        self._share = share
        self._counterparts = counterparts
        self._words = Words(token_texts(tokenizer))
        self._vocab_size = tokenizer.vocab_size
        self._pool = np.concatenate([np.arange(tokenizer.vocab_size), counterparts.pool])
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        share = value_at(self._share, step)
        tokens = batch.tokens.numpy().ravel()
        firsts, sizes = self._words.of(batch)
        chance = self._draws.uniform(step, first_row, shape_of(batch)).ravel()[firsts]
        chosen = (chance < share) & (sizes <= self._counterparts.longest)
        # What a row's beginning or end may have cut is no word.
        width = batch.tokens.shape[1]
        chosen &= (firsts % width != 0) & ((firsts + sizes) % width != 0)
        chosen = chosen.nonzero()[0]
        firsts, sizes = firsts[chosen], sizes[chosen]
        columns = np.arange(self._counterparts.longest)
        words = tokens[np.minimum(firsts[:, None] + columns, len(tokens) - 1)]
        words[columns >= sizes[:, None]] = PADDING
        found, begin, count = self._counterparts.find(words)
        if not len(found):
            return batch
        places, sizes = firsts[found], sizes[found]
        begins, counts = tokens.copy(), np.ones_like(tokens)
        targets = batch.targets.numpy().ravel().copy()
        targets[places] = targets[places + sizes - 1]
        begins[places] = self._vocab_size + begin
        counts[ranges(places, sizes)] = 0
        counts[places] = count
        return rewritten(batch, self._pool, begins, counts, targets)
