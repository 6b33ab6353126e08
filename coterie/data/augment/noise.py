"""Noise: a share of the inputs is replaced, the targets stay.

Word dropout as in Bowman et al. 2016 (arXiv:1511.06349, one token for all that are dropped) or Xie
et al. 2017 (arXiv:1703.02573, others in their place); runs of several as in SpanBERT (Joshi et al.
2020, arXiv:1907.10529).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from coterie.batch import IGNORE, TokenBatch
from coterie.data.augment.draws import Draws, shape_of
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.ramp import Share, value_at
from coterie.tokenizer.interface import Tokenizer

Others = Callable[[TokenBatch, int, int], np.ndarray | int]
"""Given (batch, step, first row), what stands in the place of each input, [B, T]."""


class TokenDropout(Augmenting):
    """Replace inputs by one token, or by tokens drawn from the whole vocabulary."""

    kind: Literal["token_dropout"] = "token_dropout"
    share: Share = Field(default=0.1, description="share of the inputs replaced")
    token: str | None = Field(
        default=None, description="what replaces them; None: any token of the vocabulary"
    )

    @property
    def streams(self) -> int:
        return 2

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        """Return the augmentation.

        Raises:
            SettingsError: the tokenizer has no single token for the text.
        """
        if self.token is not None:
            token = tokenizer.single_token(self.token, "data.augment: token")
            return _Noise(self.share, 1, lambda *_: token, draws)

        def drawn(batch: TokenBatch, step: int, first_row: int) -> np.ndarray:
            chance = draws.uniform(step, first_row, shape_of(batch), stream=1)
            return (chance * np.float64(tokenizer.vocab_size)).astype(np.int64)

        return _Noise(self.share, 1, drawn, draws)


class Mask(Augmenting):
    """Replace inputs by one token that says that something is missing."""

    kind: Literal["mask"] = "mask"
    share: Share = Field(default=0.1, description="share of the inputs replaced")
    token: str = Field(default="<unk>", description="what replaces them")

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        token = tokenizer.single_token(self.token, "data.augment: token")
        return _Noise(self.share, 1, lambda *_: token, draws)


class SpanMask(Augmenting):
    """Replace runs of inputs by one token for each of them."""

    kind: Literal["span_mask"] = "span_mask"
    share: Share = Field(default=0.1, description="share of the inputs replaced")
    token: str = Field(default="<unk>", description="what replaces each of them")
    length: int = Field(default=3, ge=1, description="tokens of a run; runs may touch")

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        token = tokenizer.single_token(self.token, "data.augment: token")
        return _Noise(self.share, self.length, lambda *_: token, draws)


class Replacement(Augmenting):
    """Replace inputs by others of the same row, so that frequent tokens stay frequent."""

    kind: Literal["replacement"] = "replacement"
    share: Share = Field(default=0.1, description="share of the inputs replaced")

    @property
    def streams(self) -> int:
        return 2

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        def others(batch: TokenBatch, step: int, first_row: int) -> np.ndarray:
            # Any column up to its own: no token says what is still to come.
            columns = np.arange(1, batch.tokens.shape[1] + 1)
            chance = draws.uniform(step, first_row, shape_of(batch), stream=1)
            places = (chance * columns).astype(np.int64)
            places += np.arange(0, batch.tokens.numel(), len(columns))[:, None]
            return batch.tokens.numpy().ravel()[places]

        return _Noise(self.share, 1, others, draws)


class _Noise:
    def __init__(self, share: Share, length: int, others: Others, draws: Draws) -> None:
        self._share = share
        self._length = length
        self._others = others
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        share = value_at(self._share, step)
        if not share:
            return batch
        begins = 1.0 - (1.0 - share) ** (1.0 / self._length)
        begun = self._draws.uniform(step, first_row, shape_of(batch)) < begins
        chosen = begun.copy()
        for reach in range(1, self._length):  # each beginning covers what follows it
            chosen[:, reach:] |= begun[:, :-reach]
        chosen &= batch.targets.numpy() != IGNORE
        others = self._others(batch, step, first_row)
        tokens = np.where(chosen, others, batch.tokens.numpy())
        return replace(batch, tokens=torch.from_numpy(tokens))
