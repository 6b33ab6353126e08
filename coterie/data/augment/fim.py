"""Fill in the middle: documents with their middle at the end.

After Bavarian et al. 2022 (arXiv:2207.14255). A document's part of a row becomes prefix, suffix and
middle, each after a token of its own, or suffix, prefix and middle for the share `suffix_first`. It
keeps its length: its last three tokens give room to the signs. Targets are what follows in the new
order; the middle ends with the separator, which is how a model says that it is filled. Cuts depend
on the row and on where the part begins in it, not on anything drawn before.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from coterie.batch import IGNORE, TokenBatch
from coterie.data.augment.draws import Draws, shape_of
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.augment.rows import Flat, followed, ranges
from coterie.data.ramp import Share, value_at
from coterie.tokenizer.interface import Tokenizer

_SHORTEST = 6  # tokens of a part that is worth cutting: half of it would be signs


class FillInTheMiddle(Augmenting):
    """Put the middle of documents at their end."""

    kind: Literal["fim"] = "fim"
    reorders, replaces = True, False
    share: Share = Field(default=0.5, description="share of the documents' parts rearranged")
    suffix_first: float = Field(
        default=0.5, ge=0, le=1, description="share of those in which the suffix comes first"
    )
    prefix: str = Field(default="<|fim_prefix|>", description="token before the prefix")
    suffix: str = Field(default="<|fim_suffix|>", description="token before the suffix")
    middle: str = Field(default="<|fim_middle|>", description="token before the middle")

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        """Return the augmentation.

        Raises:
            SettingsError: the tokenizer has no single token for one of the three signs.
        """
        names = ("prefix", "suffix", "middle")
        signs = [
            tokenizer.single_token(text, f"data.augment: {name}")
            for name, text in zip(names, (self.prefix, self.suffix, self.middle), strict=True)
        ]
        return _FillInTheMiddle(self, np.array(signs), tokenizer.end_of_text, draws)


class _FillInTheMiddle:
    def __init__(
        self, settings: FillInTheMiddle, signs: np.ndarray, separator: int, draws: Draws
    ) -> None:
        self._settings = settings
        self._signs = signs
        self._separator = separator
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        flat = Flat.of(batch, self._separator)
        starts, sizes = flat.runs()
        sizes = sizes - (flat.tokens[starts + sizes - 1] == self._separator)
        chance = self._draws.uniform(step, first_row, shape_of(batch)).ravel()
        # Four numbers for each part: those of its first places, for a shorter one is not cut.
        drawn = chance[np.minimum(starts + np.arange(4)[:, None], len(chance) - 1)]
        chosen = (drawn[0] < value_at(self._settings.share, step)) & (sizes >= _SHORTEST)
        if flat.live is not None:
            chosen &= flat.live[starts]
        if not chosen.any():
            return batch
        starts, sizes = starts[chosen], sizes[chosen]
        text = sizes - len(self._signs)  # tokens of the document that stay
        cuts = np.stack([drawn[1][chosen], drawn[2][chosen]]) * (text + 1)
        first, second = np.minimum(np.sort(cuts, axis=0).astype(np.int64), text)
        suffix_first = drawn[3][chosen] < self._settings.suffix_first
        ends = starts + sizes - 1
        tokens = flat.tokens.copy()
        tokens[ranges(starts, sizes)] = self._rearranged(
            flat, starts, text, first, second, suffix_first
        )
        last = flat.targets.copy()
        last[ends] = np.where(last[ends] == IGNORE, IGNORE, self._separator)
        return flat.with_rows(tokens, followed(tokens, flat.begins, last))

    def _rearranged(
        self,
        flat: Flat,
        starts: np.ndarray,
        text: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        suffix_first: np.ndarray,
    ) -> np.ndarray:
        """Return the tokens of the parts in their new order, one part after another.

        Args:
            flat: the batch.
            starts: where the parts begin.
            text: how many of their tokens stay.
            first, second: where the middle of each begins and ends.
            suffix_first: whether the suffix comes before the prefix.
        """
        pool = np.concatenate([flat.tokens, self._signs])
        signs = len(flat.tokens) + np.arange(3)[:, None] + np.zeros_like(starts)
        one = np.ones_like(starts)
        prefix, suffix = (starts, first), (starts + second, text - second)
        middle = (starts + first, second - first)
        sign_p, sign_s, sign_m = ((sign, one) for sign in signs)
        usual = np.array([sign_p, prefix, sign_s, suffix, sign_m, middle])
        other = np.array([sign_p, sign_s, suffix, sign_m, prefix, middle])
        pieces = np.where(suffix_first, other, usual)  # [6, 2, parts]
        return pool[ranges(*pieces.transpose(1, 2, 0).reshape(2, -1))]
