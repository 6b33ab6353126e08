"""Lines and speeches in another order, and lines from right to left.

Only what begins and ends inside a document's part of a row is moved. Targets are what follows in
the new order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from coterie.batch import TokenBatch
from coterie.data.augment.draws import Draws, shape_of
from coterie.data.augment.interface import Augmentation, Augmenting
from coterie.data.augment.rows import Flat, followed, laid_out, ranges, sizes_of
from coterie.data.augment.words import token_texts
from coterie.data.ramp import Share, value_at
from coterie.foundation.errors import SettingsError
from coterie.tokenizer.interface import Tokenizer


class Shuffle(Augmenting):
    """Put the lines or the speeches of a document's part of a row into a drawn order."""

    kind: Literal["shuffle"] = "shuffle"
    reorders, replaces = True, False
    share: Share = Field(default=0.1, description="share of the documents' parts shuffled")
    unit: Literal["line", "speech"] = Field(default="line", description="what is moved as a whole")
    opening: str = Field(default="<SPEAKER>", description="the token that a speech begins with")

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        """Return the augmentation.

        Raises:
            SettingsError: there is no token that a speech, or one that a line ends with.
        """
        if self.unit == "line":
            return _Shuffle(self.share, _line_ends(tokenizer), None, tokenizer, draws)
        opening = tokenizer.single_token(self.opening, "data.augment: opening")
        return _Shuffle(self.share, None, opening, tokenizer, draws)


class Reverse(Augmenting):
    """Write lines from right to left, after a token that says so; the last token of each stays."""

    kind: Literal["reverse"] = "reverse"
    reorders, replaces = True, False
    share: Share = Field(default=0.1, description="share of the lines reversed")
    token: str = Field(default="<|reverse|>", description="what stands before such a line")

    def build(self, tokenizer: Tokenizer, draws: Draws) -> Augmentation:
        """Return the augmentation.

        Raises:
            SettingsError: the tokenizer has no single token that says so.
        """
        token = tokenizer.single_token(self.token, "data.augment: token")
        return _Reverse(self.share, token, _line_ends(tokenizer), tokenizer.end_of_text, draws)


def _line_ends(tokenizer: Tokenizer) -> np.ndarray:
    """Return which tokens hold the end of a line, bool [V]."""
    ends = np.array([b"\n" in text for text in token_texts(tokenizer)])
    if not ends.any():
        raise SettingsError("data.augment: no token of this tokenizer ends a line.")
    return ends


@dataclass(frozen=True)
class _Parts:
    """The lines or speeches of flat rows.

    Attributes:
        starts, sizes: of each.
        first: whether it is the first of its run.
        inner: whether it is complete: neither the first nor the last of its run.
    """

    starts: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    inner: np.ndarray

    @staticmethod
    def of(flat: Flat, begins: np.ndarray) -> _Parts:
        """Divide rows where a part `begins` and where a run does."""
        starts = (begins | flat.begins).nonzero()[0]
        first = flat.begins[starts]
        inner = ~first
        inner[:-1] &= inner[1:]
        inner[-1] = False
        if flat.live is not None:
            inner &= flat.live[starts]
        return _Parts(starts, sizes_of(starts, len(begins)), first, inner)


def _lines(flat: Flat, ends: np.ndarray) -> _Parts:
    """Divide rows into lines, given which tokens end one."""
    begins = np.empty_like(flat.begins)
    begins[0] = True
    begins[1:] = ends[flat.tokens[:-1]]
    return _Parts.of(flat, begins)


class _Shuffle:
    def __init__(
        self,
        share: Share,
        ends: np.ndarray | None,
        opening: int | None,
        tokenizer: Tokenizer,
        draws: Draws,
    ) -> None:
        self._share = share
        self._ends = ends
        self._opening = opening
        self._separator = tokenizer.end_of_text
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        flat = Flat.of(batch, self._separator)
        if self._ends is not None:
            parts = _lines(flat, self._ends)
        else:
            parts = _Parts.of(flat, flat.tokens == self._opening)
        chance = self._draws.uniform(step, first_row, shape_of(batch)).ravel()[parts.starts]
        # Of a run's first part the chance says whether it is shuffled, of others where they go.
        run = parts.first.cumsum() - 1
        moved = parts.inner & (chance[parts.first] < value_at(self._share, step))[run]
        if not moved.any():
            return batch
        at = moved.nonzero()[0]
        order = np.arange(len(moved))
        order[at] = at[np.lexsort((chance[at], run[at]))]
        source = ranges(parts.starts[order], parts.sizes[order])
        tokens = flat.tokens[source]
        return flat.with_rows(tokens, followed(tokens, flat.begins, flat.targets))


class _Reverse:
    def __init__(
        self, share: Share, token: int, ends: np.ndarray, separator: int, draws: Draws
    ) -> None:
        self._share = share
        self._token = token
        self._ends = ends
        self._separator = separator
        self._draws = draws

    def __call__(self, batch: TokenBatch, step: int, first_row: int) -> TokenBatch:
        flat = Flat.of(batch, self._separator)
        parts = _lines(flat, self._ends)
        chance = self._draws.uniform(step, first_row, shape_of(batch)).ravel()[parts.starts]
        chosen = (parts.inner & (chance < value_at(self._share, step))).nonzero()[0]
        if not len(chosen):
            return batch
        starts, sizes = parts.starts[chosen], parts.sizes[chosen]
        # A line's tokens but the last one, backwards, and the sign before each line.
        moved = ranges(starts, sizes - 1)
        tokens = flat.tokens.copy()
        tokens[moved] = flat.tokens[(2 * starts + sizes - 2).repeat(sizes - 1) - moved]
        counts = np.ones_like(tokens)
        counts[starts] = 2
        signs = starts + np.arange(len(starts))
        tokens = tokens.repeat(counts)
        tokens[signs] = self._token
        begins = flat.begins.repeat(counts)  # no inner line begins a run
        targets = followed(tokens, begins, flat.targets.repeat(counts))
        return laid_out(batch, tokens, targets, counts)
