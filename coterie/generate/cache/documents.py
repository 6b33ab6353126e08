"""Which document each position read so far is of, for rows that hold several."""

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
        numbers: the document of each position; 0 beyond a row's last position.
        last: the document of each row's last token; −1 before the first.
        last_start: where that document begins.
    """

    starts: Int[Tensor, "B L"]
    numbers: Int[Tensor, "B L"]
    last: Int[Tensor, " B"]
    last_start: Int[Tensor, " B"]

    @staticmethod
    def begun(past: tuple[int, ...], device: torch.device) -> "DocumentRecord":
        """Return the record of rows each of which is one document so far."""
        nothing = torch.zeros(len(past), dtype=torch.long, device=device)
        read = torch.tensor(past, device=device)
        none_yet = torch.zeros(len(past), max(past), dtype=torch.long, device=device)
        return DocumentRecord(none_yet, none_yet.clone(), nothing.where(read > 0, -1), nothing)

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
            self.numbers = F.pad(self.numbers, (0, missing))
        row, place, position = rows.real
        self.starts[row, position] = starts[row, place]
        self.numbers[row, position] = documents[row, place]
        self.last, self.last_start = ends[:, 0], starts[:, -1]
        return replace(rows, starts=starts, key_starts=self.starts)

    def selected(self, rows: Int[Tensor, " R"]) -> "DocumentRecord":
        """Return the record of some rows, in this order."""
        return DocumentRecord(*(tensor.index_select(0, rows) for tensor in self._each()))

    def joined(self, other: "DocumentRecord") -> "DocumentRecord":
        """Return the record of these rows and, after them, those of another."""
        width = max(self.starts.shape[1], other.starts.shape[1])
        pairs = zip(self._each(), other._each(), strict=True)
        return DocumentRecord(*(
            torch.cat([F.pad(each, (0, width - each.shape[1])) if each.ndim > 1 else each
                       for each in pair])
            for pair in pairs
        ))  # fmt: skip

    def truncated(self, lengths: tuple[int, ...]) -> "DocumentRecord":
        """Return the record of the first tokens of each row, at least one."""
        ends = torch.tensor(lengths, device=self.starts.device)[:, None]
        kept = torch.arange(max(lengths), device=ends.device) < ends
        starts, numbers = (
            each[:, : max(lengths)].where(kept, 0) for each in (self.starts, self.numbers)
        )
        last, last_start = (each.gather(1, ends - 1)[:, 0] for each in (numbers, starts))
        return DocumentRecord(starts, numbers, last, last_start)

    def _each(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.starts, self.numbers, self.last, self.last_start
