"""Subword regularisation: tokens are written as two others of the vocabulary, and those again.

The inputs of Provilkov et al. 2020 (BPE-dropout, arXiv:1910.13267) by other means: a token is split
where both sides are tokens, each such place as likely as the others, so that any tokenizer whose
tokens are pieces of text will do. Targets are the usual tokens: what follows a split token.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws, shape_of
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.augment.rows import rewritten
from coterie.data.ramp import Share, value_at
from coterie.foundation.errors import SettingsError
from coterie.tokenizer.interface import Tokenizer


class BPEDropout(Augmenting):
    """Write tokens as several shorter ones."""

    kind: Literal["bpe_dropout"] = "bpe_dropout"
    share: Share = Field(default=0.1, description="share of the tokens split in each round")
    rounds: int = Field(default=2, ge=1, le=8, description="how often halves are split again")

    @property
    def streams(self) -> int:
        return self.rounds

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        """Return the augmentation.

        Raises:
            SettingsError: no token is made of two others.
        """
        ends, pairs = _splits(tokenizer)
        if not len(pairs):
            raise SettingsError(
                "data.augment: bpe_dropout splits tokens, and this tokenizer has none that is "
                "made of two others.",
                hint="Take a subword tokenizer, such as tokenizer.kind=bpe, or another kind.",
            )
        pool = np.concatenate([np.arange(tokenizer.vocab_size), pairs.ravel()])
        return _BPEDropout(self, pool, ends, tokenizer.vocab_size, draws)


def _splits(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pairs of each token end, [V], and all pairs, [pairs, 2]."""
    size = tokenizer.vocab_size
    special = set(tokenizer.special_tokens.values())
    if not tokenizer.joins_bytes:
        return np.zeros(size, dtype=np.int64), np.empty((0, 2), dtype=np.int64)
    texts = [b"" if token in special else tokenizer.token_bytes(token) for token in range(size)]
    numbers = {text: token for token, text in enumerate(texts) if text}
    pairs, ends = [], []
    for text in texts:
        for at in range(1, len(text)):
            left, right = numbers.get(text[:at]), numbers.get(text[at:])
            if left is not None and right is not None:
                pairs.append((left, right))
        ends.append(len(pairs))
    return np.array(ends, dtype=np.int64), np.array(pairs, dtype=np.int64).reshape(-1, 2)


class _BPEDropout:
    def __init__(
        self, settings: BPEDropout, pool: np.ndarray, ends: np.ndarray, vocab: int, draws: Draws
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._firsts = np.concatenate([[0], ends[:-1]])
        self._choices = ends - self._firsts
        self._vocab = vocab
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        share = value_at(self._settings.share, step)
        for number in range(self._settings.rounds):
            chance = self._draws.uniform(step, first_row, shape_of(batch), number).ravel()
            tokens = batch.tokens.numpy().ravel()
            at = np.flatnonzero((chance < share) & (self._choices[tokens] > 0))
            if not len(at):
                continue
            # The chance, stretched from below `share` to below 1, also says where to split.
            chosen = tokens[at]
            which = (chance[at] * (self._choices[chosen] / share)).astype(np.int64)
            which = np.minimum(which, self._choices[chosen] - 1)
            begins, counts = tokens.copy(), np.ones_like(tokens)
            begins[at] = self._vocab + 2 * (self._firsts[chosen] + which)
            counts[at] = 2
            batch = rewritten(batch, self._pool, begins, counts)
        return batch
