"""Words in other case: all small, all capitals, or small with a capital first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import Field

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws, shape_of
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.augment.rows import ranges, rewritten
from coterie.data.augment.words import Words, token_texts
from coterie.data.ramp import Share, value_at
from coterie.tokenizer.interface import Tokenizer

Variant = Literal["lower", "upper", "capital"]


def _with_capital(text: str) -> str:
    at = next((place for place, letter in enumerate(text) if letter.isalpha()), 0)
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :].lower()


# What becomes of a word's first token and of its others.
_CHANGES: dict[Variant, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "lower": (str.lower, str.lower),
    "upper": (str.upper, str.upper),
    "capital": (_with_capital, str.lower),
}


class Case(Augmenting):
    """Write words in other case; targets stay the text's own."""

    kind: Literal["case"] = "case"
    share: Share = Field(default=0.1, description="share of the words changed")
    variants: tuple[Variant, ...] = Field(
        default=("lower", "upper", "capital"), min_length=1, description="drawn for each word"
    )

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        texts = token_texts(tokenizer)
        changes = [change for variant in self.variants for change in _CHANGES[variant]]
        begins, counts, pool = _tables(tokenizer, texts, changes)
        return _Case(self, Words(texts), pool, begins, counts, draws)


def _tables(
    tokenizer: Tokenizer, texts: list[bytes], changes: list[Callable[[str], str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each token's sequence begins and how long it is, [changes, V], and all of them.

    A token stays as it is where the change is none, or is nothing that the tokenizer can say.
    """
    size = tokenizer.vocab_size
    numbers = {text: token for token, text in enumerate(texts) if text}
    begins = np.tile(np.arange(size), (len(changes), 1))
    counts, pool = np.ones_like(begins), list(range(size))
    for token, raw in enumerate(texts):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        if text.lower() == text.upper():
            continue
        for row, change in enumerate(changes):
            changed = change(text).encode()
            if changed == raw:
                continue
            if changed in numbers:
                begins[row, token] = numbers[changed]
                continue
            found = tokenizer.encode(changed.decode(), special=False)
            if found and b"".join(texts[each] for each in found) == changed:
                begins[row, token], counts[row, token] = len(pool), len(found)
                pool += found
    return begins, counts, np.array(pool, dtype=np.int64)


class _Case:
    def __init__(
        self,
        settings: Case,
        words: Words,
        pool: np.ndarray,
        begins: np.ndarray,
        counts: np.ndarray,
        draws: Draws,
    ) -> None:
        self._settings = settings
        self._words = words
        self._pool, self._begins, self._counts = pool, begins, counts
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        share = value_at(self._settings.share, step)
        if not share:
            return batch
        tokens = batch.tokens.numpy().ravel()
        firsts, sizes = self._words.of(batch)
        # Every token of a word has the chance of its first.
        chance = self._draws.uniform(step, first_row, shape_of(batch)).ravel()[firsts]
        words = (chance < share).nonzero()[0]
        firsts, sizes = firsts[words], sizes[words]
        which = (chance[words] * (len(self._settings.variants) / share)).astype(np.int64)
        which = 2 * np.minimum(which, len(self._settings.variants) - 1)
        at = ranges(firsts, sizes)
        which = (which + 1).repeat(sizes)
        which[sizes.cumsum() - sizes] -= 1  # the first of each word
        begins, counts = tokens.copy(), np.ones_like(tokens)
        changed = tokens[at]
        begins[at] = self._begins[which, changed]
        counts[at] = self._counts[which, changed]
        return rewritten(batch, self._pool, begins, counts)
