"""The latest token ids of each row, for parts that look at the ids themselves."""

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from coterie.model.geometry import UnevenRows, shifted_right

_PIECES = 64
"""Tokens are joined once so many pieces have come, or when somebody asks for them."""


class RecentTokens:
    """Up to `keep` of the latest ids of each row; −1 where a row has read fewer."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._joined: Int[Tensor, "B n"] | None = None
        self._pieces: list[Int[Tensor, "B T"]] = []

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None) -> None:
        """Add new tokens; `rows` says which of them are padding."""
        self._pieces.append(tokens[:, -self._keep :].clone() if rows is None else tokens.clone())
        padded = rows is not None and not rows.even
        if padded or len(self._pieces) >= _PIECES:
            known = self.all()
            assert known is not None
            if padded:
                assert rows is not None
                known = shifted_right(known, tokens.shape[1] - 1 - rows.last, -1)
            self._joined = known[:, -self._keep :].clone()

    def all(self) -> Int[Tensor, "B n"] | None:
        """Return all that are kept, and perhaps some before them; None before the first."""
        if self._pieces:
            parts = self._pieces if self._joined is None else [self._joined, *self._pieces]
            self._joined = torch.cat(parts, 1)
            self._pieces = []
        return self._joined

    def latest(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest; None before the first."""
        known = self.all()
        return None if known is None else known[:, max(known.shape[1] - count, 0) :]

    def select(self, rows: Int[Tensor, " R"]) -> None:
        known = self.all()
        self._joined = None if known is None else known.index_select(0, rows)

    def join(self, other: "RecentTokens") -> None:
        """Put the rows of another record after one's own."""
        one, two = self.latest(self._keep), other.latest(self._keep)
        if one is None or two is None:
            self._joined = two if one is None else one
            return
        width = max(one.shape[1], two.shape[1])
        self._joined = torch.cat(
            [F.pad(each, (width - each.shape[1], 0), value=-1) for each in (one, two)]
        )

    def forget(self, counts: tuple[int, ...]) -> None:
        """Drop so many of each row's latest."""
        known = self.latest(self._keep)
        if known is not None:
            by = torch.tensor(counts, device=known.device)
            self._joined = shifted_right(known, by, -1)
