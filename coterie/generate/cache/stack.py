"""The caches of all layers together, and the tokens they stand for: what the decoder is handed."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.documents import DocumentRecord
from coterie.generate.cache.recent import RecentTokens
from coterie.generate.cache.summaries import RunPlacement
from coterie.model import AttentionCache
from coterie.model.geometry import UnevenRows, place_rows

RECENT_TOKENS = 64
"""How many token ids are kept for parts that look at the ids themselves (n-gram embeddings)."""


@runtime_checkable
class LayerCache(AttentionCache, Protocol):
    """One layer's cache: the model's `AttentionCache`, and what generation needs besides."""

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; a row may be named more than once.

        Where each row keeps its place or is overwritten by one from behind the last that stays, as
        when a row leaves and the last one takes its place, no other row should be copied.
        """
        ...

    def join(self, other: Any) -> None:
        """Put the rows of another cache, made by the same settings, after one's own.

        Both hold at least one row that has read something; the other is not used any more.
        """
        ...

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on, as if they had never been read.

        Raises:
            ValueError: more is taken back than the settings' `build(specs, rollback)` said.
        """
        ...

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, the room for further positions included."""
        ...


@runtime_checkable
class InPlaceCache(LayerCache, Protocol):
    """A layer's cache whose memory may be read and written by others: position p is at slot p."""

    def memory(self, extra: int) -> tuple[Float[Tensor, "B K R C"], Float[Tensor, "B J R E"]]:
        """Return the keys and values of all rows, with room for `extra` more positions of each.

        Slots beyond a row's last position are finite. Valid until the next call of anything.
        """
        ...

    def advance(self, end: int) -> None:
        """Say up to where positions are written now, in the longest row."""
        ...


class Placement(NamedTuple):
    """Where one layer's positions lie; valid until the next call of anything.

    Attributes:
        keys: of all rows; where rows share memory, of B = 1.
        values: likewise.
        runs: of each row, stretches of positions that follow each other in memory: the first, the
            one after the last, and how many slots further than its number a position lies. Rows
            with fewer are padded with empty ones. None: position p is at slot p.
        bound: the most positions that a query sees, its own included; 0: any.
    """

    keys: Float[Tensor, "B K R C"]
    values: Float[Tensor, "B J R E"]
    runs: Int[Tensor, "b n 3"] | None = None
    bound: int = 0

    def words(self) -> tuple[int, ...]:
        """Return addresses, and strides in elements, as kernels read them."""
        keys, values, runs, bound = self
        assert keys.stride(2) == keys.shape[3], "the positions of a head follow each other"
        return (
            keys.data_ptr(), keys.stride(0), keys.stride(1),
            values.data_ptr(), values.stride(0), values.stride(1),
            *((0, 0) if runs is None else (runs.data_ptr(), runs.shape[1])), bound,
        )  # fmt: skip


@runtime_checkable
class PlacedCache(LayerCache, Protocol):
    """A layer's cache whose memory may be read and written by others, wherever positions are."""

    @property
    def placeable(self) -> bool:
        """Whether that is so for what it holds now."""
        ...

    @property
    def left(self) -> int:
        """How many positions of each row may be written at once."""
        ...

    def placed(self, extra: int, past: tuple[int, ...]) -> Placement | RunPlacement:
        """Return where positions are, with room for `extra` more of each row.

        Args:
            extra: positions that are about to be written.
            past: how many each row has read.
        """
        ...

    def written(self, past: tuple[int, ...]) -> None:
        """Say how many positions each row has read now, of which at most `extra` are new."""
        ...


class CacheStack:
    """The past of a batch of texts, as `coterie.model.cache` describes it.

    Args:
        layers: one cache per attention layer, from the bottom up.
        rollback: how many of the latest tokens `truncate` may take back.
    """

    def __init__(self, layers: Sequence[LayerCache], rollback: int = 0) -> None:
        self.layers = tuple(layers)
        self.rollback = rollback
        self.length = 0
        self.rows = 0
        self.state: dict[str, Tensor] = {}
        self._lengths: tuple[int, ...] | None = None  # of each row, once they may differ
        self._documents: DocumentRecord | None = None
        self._recent = RecentTokens(RECENT_TOKENS + rollback)
        # Asked for with every step, and a question that takes long.
        self.in_place = tuple(x if isinstance(x, InPlaceCache) else None for x in self.layers)
        self.placed = tuple(
            x if whole is None and isinstance(x, PlacedCache) else None
            for x, whole in zip(self.layers, self.in_place, strict=True)
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions that each row has read."""
        return (self.length,) * self.rows if self._lengths is None else self._lengths

    def place(
        self,
        tokens: Int[Tensor, "B T"],
        lengths: tuple[int, ...] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
    ) -> UnevenRows | None:
        """Return where new tokens will stand; None while all rows have read equally much.

        Rows read without documents after some with them go on with their last document; what was
        read before any were named is document 0.

        Raises:
            ValueError: there are not as many lengths as rows.
        """
        batch, number = tokens.shape
        lengths = (number,) * batch if lengths is None else lengths
        if len(lengths) != batch:
            raise ValueError(f"{len(lengths)} lengths were given for {batch} rows")
        even = all(length == number for length in lengths)
        if self._lengths is None and even and documents is None:
            return None
        rows = place_rows(self._lengths or (self.length,) * batch, lengths, number, tokens.device)
        if documents is None and self._documents is None:
            return rows
        if self._documents is None:
            self._documents = DocumentRecord.begun(rows.past, rows.positions.device)
        return self._documents.place(rows, documents)

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        assert count <= RECENT_TOKENS, f"at most {RECENT_TOKENS} recent tokens are kept"
        return self._recent.latest(count)

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None = None) -> None:
        self.rows = tokens.shape[0]
        self._recent.extend(tokens, rows)
        if rows is None:
            self.length += tokens.shape[1]
        else:
            self._lengths, self.length = rows.totals, max(rows.totals)

    def reserve(self, extra: int) -> None:
        """Prepare for so many positions of each row to be written into the memory of the layers."""

    def advance(self, tokens: Int[Tensor, "B T"], real: tuple[int, ...] | None = None) -> None:
        """Make T new tokens of every row part of the past.

        Of rows that have ended, and will leave, only `real` were read.

        Their keys and values were written into the memory of the layers, each an `InPlaceCache` or
        a `PlacedCache`; no row holds several documents. The caller brings `state` up to date.
        """
        assert self._documents is None
        number = tokens.shape[1]
        self._recent.extend(tokens, None)
        self.length += number
        if self._lengths is not None:
            self._lengths = tuple(length + number for length in self._lengths)
        for whole, placed in zip(self.in_place, self.placed, strict=True):
            if whole is not None:
                whole.advance(self.length)
            else:
                assert placed is not None
                placed.written(self.lengths)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; `[0, 0]` doubles the first."""
        for layer in self.layers:
            layer.select(rows)
        self._recent.select(rows)
        self.state = {name: each.index_select(0, rows) for name, each in self.state.items()}
        self.rows = len(rows)
        if self._lengths is not None:
            self._set_lengths(tuple(self._lengths[row] for row in rows.tolist()))
        if self._documents is not None:
            self._documents = self._documents.selected(rows)

    def join(self, other: "CacheStack") -> None:
        """Put the rows of another stack, made by the same settings, after one's own.

        The other is not to be used any more.
        """
        if not other.rows:
            return
        if not self.rows:
            vars(self).update(vars(other))
            return
        lengths = self.lengths + other.lengths
        even = self._lengths is None and other._lengths is None and self.length == other.length
        for own, more in zip(self.layers, other.layers, strict=True):
            own.join(more)
        self._recent.join(other._recent)
        assert self.state.keys() == other.state.keys()
        self.state = {name: torch.cat((it, other.state[name])) for name, it in self.state.items()}
        if self._documents is not None or other._documents is not None:
            one, two = (each._record() for each in (self, other))
            self._documents = one.joined(two)
        self.rows += other.rows
        if not even:
            self._set_lengths(lengths)

    def truncate(self, lengths: tuple[int, ...], state: dict[str, Tensor] | None = None) -> None:
        """Forget each row's tokens from `lengths[row]` on, as if they had never been read.

        Args:
            lengths: how many tokens of each row stay.
            state: what parts of the decoder carry after those; needed where `self.state` is not
                empty, for nobody but those parts can tell.

        Raises:
            ValueError: a row has fewer tokens or would keep none, more is taken back than
                `rollback` and some layer has dropped what stood before, or the state is missing.
        """
        before = self.lengths
        if len(lengths) != self.rows or not all(
            0 < new <= old for new, old in zip(lengths, before, strict=True)
        ):
            raise ValueError(f"rows of {before} tokens cannot be truncated to {lengths}")
        if lengths == before:
            return
        if self.state and state is None:
            raise ValueError("the decoder carries a state; truncate must be given what it was")
        for layer in self.layers:
            layer.truncate(lengths)
        self._recent.forget(tuple(old - new for new, old in zip(lengths, before, strict=True)))
        self.state = dict(state or {})
        if self._documents is not None:
            self._documents = self._documents.truncated(lengths)
        if self._lengths is None and len(set(lengths)) == 1:
            self.length = lengths[0]
        else:
            self._set_lengths(lengths)

    def _set_lengths(self, lengths: tuple[int, ...]) -> None:
        self._lengths, self.length = lengths, max(lengths, default=0)

    def _record(self) -> DocumentRecord:
        """Return what is known of documents; nothing was said: each row is one."""
        recent = self.recent_tokens(1)
        assert recent is not None
        return self._documents or DocumentRecord.begun(self.lengths, recent.device)

    @property
    def nbytes(self) -> int:
        """Memory held by keys and values, in bytes, the room for further positions included."""
        return sum(layer.nbytes for layer in self.layers)
