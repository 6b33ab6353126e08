"""Which document each position read so far is of, for rows that hold several."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from coterie.model.geometry import UnevenRows


@dataclass
class DocumentRecord:
    """What a cache knows of the documents in its rows.

    Attributes:
        starts: where the document of each position begins; 0 beyond a row's last position.
        last: the document of each row's last token; −1 before the first.
        last_start: where that document begins.
    """

    starts: Int[Tensor, "B L"]
    last: Int[Tensor, " B"]
    last_start: Int[Tensor, " B"]

    @staticmethod
    def begun(rows: UnevenRows) -> DocumentRecord:
        """Return the record of rows each of which is one document so far."""
        device, batch = rows.positions.device, len(rows.past)
        nothing = torch.zeros(batch, dtype=torch.long, device=device)
        past = torch.tensor(rows.past, device=device)
        none_yet = torch.zeros(batch, max(rows.past), dtype=torch.long, device=device)
        return DocumentRecord(none_yet, nothing.where(past > 0, -1), nothing)

    def place(self, rows: UnevenRows, documents: Int[Tensor, "B T"] | None) -> UnevenRows:
        """Take the documents of new tokens down; None: the rows go on with their last ones."""
        if documents is None:
            documents = self.last[:, None].expand_as(rows.positions)
        # Padding belongs to the row's last document.
        last = rows.last.clamp(min=0)[:, None]
        at = torch.arange(documents.shape[1], device=documents.device)
        ends = documents.gather(1, last).where(rows.last[:, None] >= 0, self.last[:, None])
        documents = documents.where(at <= rows.last[:, None], ends)
        before = torch.cat((self.last[:, None], documents[:, :-1]), 1)
        begins = (documents != before) | (rows.positions == 0)
        starts = torch.maximum(
            rows.positions.where(begins, 0).cummax(1).values, self.last_start[:, None]
        )
        missing = max(rows.totals) - self.starts.shape[1]
        if missing > 0:
            self.starts = F.pad(self.starts, (0, missing))
        row, place, position = rows.real
        self.starts[row, position] = starts[row, place]
        self.last, self.last_start = ends[:, 0], starts[:, -1]
        return replace(rows, starts=starts, key_starts=self.starts)

    def selected(self, rows: Int[Tensor, " R"]) -> DocumentRecord:
        """Return the record of some rows, in this order."""
        each = (self.starts, self.last, self.last_start)
        return DocumentRecord(*(tensor.index_select(0, rows) for tensor in each))
