"""Rows that begin a few tokens later, so that what stands where moves from epoch to epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from coterie.batch import IGNORE, TokenBatch
from coterie.data.augment.draws import Draws
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.augment.rows import PADDING
from coterie.data.ramp import Share, value_at
from coterie.tokenizer.interface import Tokenizer


class Jitter(Augmenting):
    """Leave out up to `most` tokens at a row's beginning; its end becomes padding.

    Sliding windows begin everywhere as it is; this is for rows that always begin alike.
    """

    kind: Literal["jitter"] = "jitter"
    replaces = False
    share: Share = Field(default=1.0, description="share of the rows moved")
    most: int = Field(default=8, ge=1, description="tokens left out at most")

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        def jitter(batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
            rows, width = batch.tokens.shape
            share = value_at(self.share, step)
            chance = draws.uniform(step, first_row, (rows, width))[:, :1]
            moved = np.where(chance < share, chance * ((self.most + 1) / max(share, 1e-9)), 0)
            columns = np.arange(width) + np.minimum(moved.astype(np.int64), self.most)
            inside = torch.from_numpy(columns < width)
            columns = torch.from_numpy(np.minimum(columns, width - 1))
            documents = batch.documents
            if documents is not None:
                documents = documents.gather(1, columns).where(inside, PADDING)
            return replace(
                batch,
                tokens=batch.tokens.gather(1, columns).where(inside, 0),
                targets=batch.targets.gather(1, columns).where(inside, IGNORE),
                documents=documents,
            )

        return jitter
