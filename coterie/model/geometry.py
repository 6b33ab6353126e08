"""Where queries and keys stand: the one place that knows, with and without a cache.

Three cases, from the cheapest to the most general. Rows of one text each and of equal length need
two numbers (`num_sinks`, `start_position`), and fused kernels serve them. Packed rows, read at
once, need where each token's document begins. Rows of unequal length that are read through a cache
need the positions of all queries and keys; so do documents that continue from call to call.

A position counts from the start of its row; positions of a document are those less its start.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

FAR = 1 << 30
"""The position of a slot that holds nothing: later than any query, so never seen."""


@runtime_checkable
class Sees(Protocol):
    """A mask, as far as positions ask for one."""

    @property
    def window(self) -> int | None:
        """Latest positions that a query sees, its own included; None: all."""
        ...

    @property
    def sinks(self) -> int:
        """First positions of the text that every query sees besides."""
        ...

    def visible(self, queries_at: Tensor, keys_at: Tensor) -> Tensor:
        """Return which of the positions `keys_at` each of `queries_at` sees, [*B, T, S]."""
        ...


@dataclass(frozen=True, eq=False)
class UnevenRows:
    """The new tokens of rows that have read unequally much before, or read unequally much now.

    Attributes:
        past: positions that each row had read before.
        lengths: real new tokens of each row; those after them are padding.
        positions: of each new token; padding stands where the row's last token does.
        starts: where each new token's document begins; None: every row is one document.
        key_starts: the same of all positions of the row so far; slots beyond them hold 0.
    """

    past: tuple[int, ...]
    lengths: tuple[int, ...]
    positions: Int[Tensor, "B T"]
    starts: Int[Tensor, "B T"] | None = None
    key_starts: Int[Tensor, "B L"] | None = None

    @property
    def totals(self) -> tuple[int, ...]:
        """Positions that each row will have read."""
        return tuple(a + b for a, b in zip(self.past, self.lengths, strict=True))

    @property
    def even(self) -> bool:
        """Whether no row has padding."""
        return min(self.lengths) == self.positions.shape[1]

    def pieces(self, row: int) -> list[tuple[int, int, int]]:
        """Return of a row's new tokens the runs of one document: start, stop, document's start."""
        length = self.lengths[row]
        if self.starts is None:
            return [(0, length, 0)] if length else []
        starts = self.starts[row, :length].tolist()
        cuts = [t for t in range(length) if t == 0 or starts[t] != starts[t - 1]]
        return [(a, b, starts[a]) for a, b in pairwise([*cuts, length])] if length else []

    @cached_property
    def real(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Row, place among the new tokens, and position of each new token but padding."""
        real = real_tokens(self.lengths, self.positions.shape[1], self.positions.device)
        rows, places = real.nonzero(as_tuple=True)
        return rows, places, self.positions[rows, places]

    @cached_property
    def last(self) -> Int[Tensor, " B"]:
        """The place, among the new tokens, of each row's last one; −1 where it has none."""
        return torch.tensor(self.lengths, device=self.positions.device) - 1


def text_lengths(at: Int[Tensor, "B T"], real: Bool[Tensor, "B T"] | None) -> Int[Tensor, "B T"]:
    """Return how many tokens the document of each token has, padding left out.

    Args:
        at: the position of each token in its document, from 0, in rows that are read at once.
        real: which tokens are no padding; None: all.
    """
    documents = (at == 0).cumsum(dim=1)
    counted = at + 1 if real is None else (at + 1).where(real, 0)
    longest = torch.zeros(at.shape[0], at.shape[1] + 1, dtype=at.dtype, device=at.device)
    longest.scatter_reduce_(1, documents, counted, "amax")
    return longest.gather(1, documents)


def shifted_right(x: Int[Tensor, "B N"], by: Int[Tensor, " B"], empty: int) -> Tensor:
    """Return rows with their last `by` entries dropped and as many empty ones before the first."""
    at = torch.arange(x.shape[1], device=x.device) - by[:, None]
    return x.gather(1, at.clamp(min=0)).where(at >= 0, empty)


def with_past(
    tokens: Int[Tensor, "B T"], recent: Int[Tensor, "B n"] | None, count: int, empty: int
) -> Int[Tensor, "B S"]:
    """Return the tokens with `count` before them: what was read, −1 for none; empty before that."""
    known = tokens if recent is None else torch.cat((recent.where(recent >= 0, empty), tokens), 1)
    length = count + tokens.shape[1]
    return F.pad(known[:, -length:], (max(length - known.shape[1], 0), 0), value=empty)


def real_tokens(lengths: tuple[int, ...], number: int, device: torch.device) -> Bool[Tensor, "B T"]:
    """Return which of `number` tokens of rows with so many real ones are no padding."""
    ends = torch.tensor(lengths, device=device)
    return torch.arange(number, device=device) < ends[:, None]


def place_rows(
    past: tuple[int, ...], lengths: tuple[int, ...], number: int, device: torch.device
) -> UnevenRows:
    """Return where `number` tokens of each row stand, the last of them padding where need be.

    Raises:
        ValueError: a row would hold no token at all, or has more than `number`.
    """
    for before, new in zip(past, lengths, strict=True):
        if not 0 <= new <= number:
            raise ValueError(f"a row cannot have {new} real tokens of {number}")
        if before + new == 0:
            raise ValueError("a row must hold at least one token")
    starts, news = torch.tensor(past, device=device), torch.tensor(lengths, device=device)
    at = starts[:, None] + torch.arange(number, device=device)
    return UnevenRows(past, lengths, torch.minimum(at, (starts + news - 1)[:, None]))


def document_starts(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return the place in its row of the first token of each token's document.

    Documents are runs of one number; two tokens are of one document when their starts are equal.
    """
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return at.where(begins, 0).cummax(dim=1).values


@dataclass(frozen=True, eq=False)
class KeyLayout:
    """Where the keys stand that a cache returns.

    Attributes:
        num_sinks: how many of the keys, the first ones, are the first positions of the text.
        start_position: of the key after those, from which on positions follow each other.
        positions: of each key where rows differ; `FAR` for slots that hold nothing.
    """

    num_sinks: int = 0
    start_position: int = 0
    positions: Int[Tensor, "B S"] | None = None


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the queries and keys of one product of attention stand.

    Without positions of their own the queries are the last of the keys.

    Attributes:
        num_queries: T.
        num_keys: S.
        num_sinks: how many of the keys, the first ones, are the first positions of the text.
        start_position: of the key after those, from which on positions follow each other.
        starts: where each token's document begins, in packed rows that are read at once.
        query_positions: of each query, where rows differ.
        key_positions: of each key, likewise; `FAR` for slots that hold nothing.
        query_starts: where each query's document begins, where rows differ and hold several.
        key_starts: the same of keys.
    """

    num_queries: int
    num_keys: int
    num_sinks: int = 0
    start_position: int = 0
    starts: Int[Tensor, "B T"] | None = None
    query_positions: Int[Tensor, "B T"] | None = None
    key_positions: Int[Tensor, "B S"] | None = None
    query_starts: Int[Tensor, "B T"] | None = None
    key_starts: Int[Tensor, "B S"] | None = None

    @staticmethod
    def of(
        num_queries: int, num_keys: int, layout: KeyLayout, rows: UnevenRows | None
    ) -> "Geometry":
        """Return the geometry of new queries and the keys that a cache returned."""
        if rows is None:
            return Geometry(num_queries, num_keys, layout.num_sinks, layout.start_position)
        keys = layout.positions
        assert keys is not None, "a cache of unequal rows says where each key stands"
        key_starts = None
        if rows.key_starts is not None:
            key_starts = rows.key_starts.gather(1, keys.clamp(max=rows.key_starts.shape[1] - 1))
        return Geometry(
            num_queries, num_keys, query_positions=rows.positions, key_positions=keys,
            query_starts=rows.starts, key_starts=key_starts,
        )  # fmt: skip

    @property
    def ragged(self) -> bool:
        """Whether each row has positions of its own."""
        return self.query_positions is not None

    @property
    def per_row(self) -> bool:
        """Whether what is seen differs from row to row."""
        return self.ragged or self.starts is not None

    @property
    def stop(self) -> int:
        """The position after the last one, where rows do not differ."""
        return self.start_position + self.num_keys - self.num_sinks

    def queries_at(self, device: torch.device) -> Int[Tensor, "*B T"]:
        """Return the positions of the queries: [T], or [B, T] where rows differ."""
        if self.query_positions is not None:
            return self.query_positions
        return torch.arange(self.stop - self.num_queries, self.stop, device=device)

    def keys_at(self, device: torch.device) -> Int[Tensor, "*B S"]:
        """Return the positions of the keys: [S], or [B, S] where rows differ."""
        if self.key_positions is not None:
            return self.key_positions
        run = torch.arange(self.start_position, self.stop, device=device)
        if not self.num_sinks:
            return run
        return torch.cat((torch.arange(self.num_sinks, device=device), run))

    def visible(
        self,
        mask: Sees,
        device: torch.device,
        queries: slice = slice(None),
        keys: Tensor | slice = slice(None),
    ) -> Bool[Tensor, "*B t s"]:
        """Return which keys queries see: [t, s], or [B, t, s] where rows differ."""
        queries_at, keys_at = (
            self.queries_at(device)[..., queries],
            self.keys_at(device)[..., keys],
        )
        begins, starts = self.document_starts(queries, keys)
        if begins is None or starts is None:
            return mask.visible(queries_at, keys_at)
        same = begins[:, :, None] == starts[:, None, :]
        return mask.visible(queries_at - begins, keys_at - starts) & same

    def document_starts(
        self, queries: slice = slice(None), keys: Tensor | slice = slice(None)
    ) -> tuple[Int[Tensor, "B t"] | None, Int[Tensor, "B s"] | None]:
        """Return where the documents of queries and keys begin; None: each row is one."""
        if self.starts is not None:
            return self.starts[:, queries], self.starts[:, keys]
        if self.query_starts is None or self.key_starts is None:
            return None, None
        return self.query_starts[:, queries], self.key_starts[:, keys]


def narrowed(geometry: Geometry, mask: Sees, *each: Tensor) -> tuple[Geometry, tuple[Tensor, ...]]:
    """Return keys and values [B, K, S, C] without what lies before every query's window."""
    if mask.window is None or geometry.per_row:
        return geometry, each
    sinks, start = geometry.num_sinks, geometry.start_position
    run = geometry.num_keys - sinks
    skipped = run - geometry.num_queries - mask.window + 1
    if not start:
        # The sinks are the run's own first positions: what lies between may go.
        if skipped <= mask.sinks:
            return geometry, each
        sinks = start = mask.sinks
        skipped -= sinks
    if skipped <= 0:
        return geometry, each
    kept = tuple(_without(one, sinks, skipped) for one in each)
    smaller = replace(
        geometry, num_keys=kept[0].shape[2], num_sinks=sinks, start_position=start + skipped
    )
    return smaller, kept


def _without(each: Tensor, start: int, count: int) -> Tensor:
    """Return keys or values without the `count` ones from `start` on."""
    if not start:
        return each[:, :, count:]
    return torch.cat((each[:, :, :start], each[:, :, start + count :]), dim=2)
