"""A batch of tokens: the one thing that the data and the model share.

Rows may hold texts of unequal length, aligned left: what follows a row's last token is padding,
whose targets are `IGNORE`. A row may also hold several documents, each in one piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = -100
"""A target that counts in no loss and in no router's load; cross-entropy's own default in torch."""


_Batch = TypeVar("_Batch", bound="TokenBatch")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """What one step reads; subclasses add tensors whose first dimension is that of the rows.

    Attributes:
        tokens: int64 [B, T].
        targets: int64 [B, T], each the token after its input; `IGNORE` where there is none.
        weights: [B, T], what each target counts in the loss; None: each valid one counts 1.
        documents: [B, T], the document of each token, a run of one number each, and −1 for padding;
            None: every row is one document.
        positions: [B, T], the position of each token; None: from 0 in each document.
        sources: [B], which of the mixed sources each row came from; None: there is only one.
    """

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    weights: Float[Tensor, "B T"] | None = None
    documents: Int[Tensor, "B T"] | None = None
    positions: Int[Tensor, "B T"] | None = None
    sources: Int[Tensor, " B"] | None = None

    @property
    def valid(self) -> Bool[Tensor, "B T"]:
        """Which positions have a target that counts."""
        return self.targets != IGNORE

    def total_weight(self) -> Tensor:
        """Return what all valid targets count together: int64 without weights, else float."""
        if self.weights is None:
            return self.valid.sum()
        return self.weights.masked_fill(~self.valid, 0.0).sum()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch on a device."""
        moved = ((name, each.to(device, non_blocking=non_blocking)) for name, each in self._held())
        return type(self)(**dict(moved))

    def pin_memory(self) -> Self:
        """Return the batch in memory from which copies to a GPU need not wait."""
        return type(self)(**{name: each.pin_memory() for name, each in self._held()})

    @staticmethod
    def concatenate(batches: Sequence[_Batch]) -> _Batch:
        """Return the rows of several batches, all of which hold the same fields."""
        held = [dict(batch._held()) for batch in batches]
        joined = {name: torch.cat([each[name] for each in held]) for name in held[0]}
        return type(batches[0])(**joined)

    def take(self, rows: Tensor) -> Self:
        """Return the rows of some numbers, int64 [N], in that order."""
        return type(self)(**{name: each[rows] for name, each in self._held()})

    def part(self, rows: int, columns: int) -> Self:
        """Return the beginnings of the first rows."""
        held = {name: each[:rows] if each.dim() == 1 else each[:rows, :columns]
                for name, each in self._held()}  # fmt: skip
        return type(self)(**held)

    def split(self, pieces: int) -> Iterator[Self]:
        """Yield the batch in `pieces` micro-batches of equally many rows.

        Raises:
            ValueError: the rows cannot be shared out evenly.
        """
        rows = self.tokens.shape[0]
        if rows % pieces:
            raise ValueError(f"{rows} rows cannot be cut into {pieces} equal micro-batches")
        if pieces == 1:
            yield self
            return
        held = {name: each.chunk(pieces) for name, each in self._held()}
        for number in range(pieces):
            yield type(self)(**{name: chunks[number] for name, chunks in held.items()})

    def _held(self) -> Iterator[tuple[str, Tensor]]:
        for field in fields(self):
            each = getattr(self, field.name)
            if each is not None:
                yield field.name, each
