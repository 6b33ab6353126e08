"""Token dropout: a share of the inputs is replaced, the targets stay.

As in the word dropout of Bowman et al. 2016 (arXiv:1511.06349, one token for all that are dropped)
or the noise of Xie et al. 2017 (arXiv:1703.02573, which also draws other tokens in their place).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer


class TokenDropout(Settings):
    """Replace inputs by one token, or by tokens drawn from the whole vocabulary."""

    kind: Literal["token_dropout"] = "token_dropout"
    share: float = Field(default=0.1, ge=0, le=1, description="share of the inputs replaced")
    token: str | None = Field(
        default=None, description="what replaces them; None: any token of the vocabulary"
    )

    def build(self, tokenizer: Tokenizer, draws: Draws) -> _TokenDropout:
        """Return the augmentation.

        Raises:
            SettingsError: the tokenizer has no single token for the text.
        """
        name = self.token
        token = None if name is None else tokenizer.single_token(name, "data.augment: token")
        return _TokenDropout(self.share, token, tokenizer.vocab_size, draws)


class _TokenDropout:
    def __init__(self, share: float, token: int | None, vocab_size: int, draws: Draws) -> None:
        self._share = share
        self._token = token
        self._vocab_size = vocab_size
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        rows, width = batch.tokens.shape
        chance = self._draws.uniform(step, first_row, (rows, width))
        dropped = torch.from_numpy(chance < self._share) & batch.valid
        if self._token is None:
            drawn = self._draws.uniform(step, first_row, (rows, width), stream=1)
            others = torch.from_numpy((drawn * self._vocab_size).astype(np.int64))
        else:
            others = torch.full_like(batch.tokens, self._token)
        return replace(batch, tokens=torch.where(dropped, others, batch.tokens))
