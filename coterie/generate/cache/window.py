"""The windowed cache: the latest positions, and the first few; memory that stops growing.

A query at position p with window w sees p and the w − 1 positions before it, so w − 1 positions are
all that must outlive a call. They sit at the end of the used part of a buffer with an eighth more
room; when the buffer is full they move to its front. A new token so costs one small write and,
averaged, eight copied positions where attention reads w; what attention is handed is a plain slice,
never a ring to unroll. Only a layer with attention sinks, first positions of the text that every
query sees (Xiao et al. 2023, arXiv:2309.17453), is handed a copy: the sinks joined to that slice.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.generate.cache.full import FullLayerCache
from coterie.generate.cache.stack import CacheStack, LayerCache, Placement
from coterie.generate.cache.summaries import SummaryLayerCache
from coterie.generate.cache.uneven import UnevenWindow, check_kept
from coterie.model import CacheSpec
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import KeyLayout, UnevenRows

_FIRST_ROOM = 256
_SPARE, _LEAST_SPARE = 8, 32
"""Room beside the window: this part of it, or so many positions, but no more than the window."""


class WindowCacheSettings(Settings):
    """Keep the latest positions: exact for layers whose own attention window is no larger.

    Without `size`, each layer specs its own window, and a layer that sees everything specs
    everything: exact for every model. With `size`, no layer specs more than that: a layer trained
    to see further then sees less, from the second call on (a prompt read in one piece is still
    seen whole), which bounds the memory and changes the text. A layer's sinks are kept besides.
    A layer that replaces finished positions by summaries specs those whatever `size` says.
    """

    kind: Literal["window"] = "window"
    size: int | None = Field(
        default=None, ge=1, le=1 << 20, description="the most positions a token sees"
    )

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> CacheStack:
        """Make an empty cache for layers with these needs.

        Each windowed layer keeps `rollback` more positions, which are seen only after `truncate`
        took back what came after them.
        """
        return CacheStack([self._layer(spec, rollback) for spec in specs], rollback)

    def kept(self, spec: CacheSpec, positions: int, size: int) -> int:
        """Return for how many positions of a text memory is held at most."""
        bounds = [bound for bound in (spec.window, self.size) if bound is not None]
        return min([positions, *(_room(bound - 1) + spec.sinks for bound in bounds)])

    def _layer(self, spec: CacheSpec, rollback: int) -> LayerCache:
        if spec.summaries:
            return SummaryLayerCache(spec.run, rollback, spec.summaries)
        bounds = [bound for bound in (spec.window, self.size) if bound is not None]
        if not bounds:
            return FullLayerCache(_FIRST_ROOM)
        return WindowLayerCache(min(bounds), spec.sinks, rollback)


def kept_of(spec: CacheSpec, positions: int) -> int | None:
    """Return for how many positions `smaller` holds memory; None: the layer needs everything."""
    if spec.summaries:
        return positions
    return None if spec.window is None else min(positions, _room(spec.window - 1) + spec.sinks)


def smaller(spec: CacheSpec, rollback: int) -> LayerCache | None:
    """Return the exact cache of a layer that needs less than everything; None: it does not."""
    if spec.summaries:
        return SummaryLayerCache(spec.run, rollback, spec.summaries)
    return None if spec.window is None else WindowLayerCache(spec.window, spec.sinks, rollback)


def _room(keep: int) -> int:
    """Return how long the buffer is in which so many positions stay."""
    return keep + max(keep // _SPARE, min(keep, _LEAST_SPARE), 1)


class WindowLayerCache:
    """The latest keys and values of one layer, and those of the first positions of the text.

    Args:
        window: how many positions a query sees, its own included.
        sinks: how many first positions it sees besides.
        rollback: how many of the latest positions may be taken back.
    """

    def __init__(self, window: int, sinks: int = 0, rollback: int = 0) -> None:
        assert window >= 1
        self._window, self._sinks, self._rollback = window, sinks, rollback
        self._length = 0  # positions seen so far
        self._keys = _Latest(window, rollback)
        self._values = _Latest(window, rollback)
        self._first: tuple[Tensor, Tensor] | None = None  # keys and values of the sinks
        self._rows: UnevenWindow | None = None  # once rows have read unequally much

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        """Add T positions; return them after up to w − 1 earlier ones.

        Where sinks are kept they come before the others. They and the run are then either the text
        from its beginning, or the run begins after a gap.
        """
        if rows is not None:
            if self._rows is None:
                self._rows = self._uneven(keys, values)
            return self._rows.append(keys, values, rows)
        if self._sinks and self._length < self._sinks:
            self._keep_sinks(keys, values)
        self._length += keys.shape[2]
        run_keys, run_values = self._keys.append(keys), self._values.append(values)
        first = self._length - run_keys.shape[2]
        if self._first is None or first == 0:
            return run_keys, run_values, KeyLayout(start_position=first)
        before = min(first, self._sinks)
        joined_keys = torch.cat((self._first[0][:, :, :before], run_keys), dim=2)
        joined_values = torch.cat((self._first[1][:, :, :before], run_values), dim=2)
        gap = first > self._sinks
        layout = KeyLayout(self._sinks, first) if gap else KeyLayout()
        return joined_keys, joined_values, layout

    def _uneven(self, keys: Tensor, values: Tensor) -> UnevenWindow:
        """Return what is kept as a window whose rows may differ; tensors give the types."""
        held_keys, held_values = self._keys.latest(keys), self._values.latest(values)
        oldest = self._length - held_keys.shape[2]
        at = torch.arange(oldest, self._length, device=keys.device)
        if self._first is not None:
            first_keys, first_values = self._first
            more = min(first_keys.shape[2], oldest)
            held_keys = torch.cat((first_keys[:, :, :more], held_keys), 2)
            held_values = torch.cat((first_values[:, :, :more], held_values), 2)
            at = torch.cat((torch.arange(more, device=keys.device), at))
        self._keys, self._values, self._first = _Latest(1), _Latest(1), None
        rows = keys.shape[0]
        reach = (self._window, self._sinks, self._rollback)
        positions = at.expand(rows, -1)
        return UnevenWindow(reach, held_keys, held_values, positions, (oldest,) * rows)

    def _as_uneven(self) -> UnevenWindow:
        """Return the rows as ones that may differ, after something was read."""
        if self._rows is None:
            self._rows = self._uneven(self._keys.some, self._values.some)
        return self._rows

    def _keep_sinks(self, keys: Tensor, values: Tensor) -> None:
        """Take what is missing of the sinks from new positions."""
        missing = self._sinks - self._length
        new_keys, new_values = keys[:, :, :missing], values[:, :, :missing]
        if self._first is None:
            self._first = (new_keys.clone(), new_values.clone())
        else:
            held_keys, held_values = self._first
            self._first = (
                torch.cat((held_keys, new_keys), 2),
                torch.cat((held_values, new_values), 2),
            )

    def select(self, rows: Int[Tensor, " R"]) -> None:
        if self._rows is not None:
            self._rows.select(rows)
        self._keys.select(rows)
        self._values.select(rows)
        if self._first is not None:
            keys, values = self._first
            self._first = (keys.index_select(0, rows), values.index_select(0, rows))

    def join(self, other: Any) -> None:
        if self._rows is not None or other._rows is not None or self._length != other._length:
            self._as_uneven().join(other._as_uneven())
            return
        self._keys.join(other._keys)
        self._values.join(other._values)
        if self._first is not None:
            assert other._first is not None
            keys, values = zip(self._first, other._first, strict=True)
            self._first = (torch.cat(keys), torch.cat(values))

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on.

        Raises:
            ValueError: what stood before is not kept any more.
        """
        if self._rows is not None or len(set(lengths)) > 1:
            self._as_uneven().truncate(lengths)
            return
        count, length = self._length - lengths[0], lengths[0]
        check_kept(self._length - len(self._keys), length, self._window, self._rollback)
        self._keys.drop(count)
        self._values.drop(count)
        self._length = length
        if self._first is not None:
            keys, values = self._first
            self._first = (keys[:, :, : self._length], values[:, :, : self._length])

    @property
    def placeable(self) -> bool:
        """Whether kernels can read it: sinks lie apart."""
        return not self._sinks

    @property
    def left(self) -> int:
        """How many positions can be written at once: any number."""
        return 1 << 30

    def placed(self, extra: int, past: tuple[int, ...]) -> Placement:
        if self._rows is not None:
            return self._rows.placed(extra, past)
        (keys, start, end), (values, _, _) = self._keys.placed(extra), self._values.placed(extra)
        first = self._length - (end - start)
        runs = torch.tensor([[[first, self._length + extra, start - first]]])
        return Placement(
            keys, values, runs.expand(keys.shape[0], -1, -1).contiguous(), self._window
        )

    def written(self, past: tuple[int, ...]) -> None:
        if self._rows is not None:
            self._rows.written(past)
            return
        for each in (self._keys, self._values):
            each.written(past[0] - self._length)
        self._length = past[0]

    @property
    def nbytes(self) -> int:
        first = 0 if self._first is None else sum(each.nbytes for each in self._first)
        uneven = 0 if self._rows is None else self._rows.nbytes
        return self._keys.nbytes + self._values.nbytes + first + uneven


class _Latest:
    """The latest positions of one tensor, contiguous: w − 1, and those to be taken back to."""

    def __init__(self, window: int, rollback: int = 0) -> None:
        self._shown = window - 1  # the query's own position always arrives with it
        self._keep = self._shown + rollback
        self._room = _room(self._keep)
        self._start = self._end = 0  # the kept positions inside the buffer
        self._held: Tensor | None = None

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def some(self) -> Tensor:
        """A tensor of the type and rows of what is held."""
        assert self._held is not None, "nothing was read yet"
        return self._held

    def append(self, new: Float[Tensor, "B K T C"]) -> Float[Tensor, "B K S C"]:
        """Add T positions and return them after the w − 1 before."""
        if self._held is None:
            batch, heads, _, channels = new.shape
            self._held = new.new_empty(batch, heads, self._room, channels)
        begin, middle = self._start, self._end
        hidden = max(middle - begin - self._shown, 0)  # kept for `drop` alone
        self._end += new.shape[2]
        if self._end > self._held.shape[2]:
            joined = torch.cat((self._held[:, :, begin:middle], new), dim=2)
            kept = min(self._keep, joined.shape[2])
            self._held[:, :, :kept] = joined[:, :, joined.shape[2] - kept :]
            self._start, self._end = 0, kept
            return joined[:, :, hidden:]
        self._held[:, :, middle : self._end] = new
        self._start = max(self._end - self._keep, self._start)
        return self._held[:, :, begin + hidden : self._end]

    def placed(self, extra: int) -> tuple[Tensor, int, int]:
        """Return the buffer, with room for `extra` more, and between which slots it is seen."""
        held = self.some
        if self._end + extra > held.shape[2]:
            kept = held[:, :, self._start : self._end].clone()
            if kept.shape[2] + extra > held.shape[2]:
                shape = (*held.shape[:2], kept.shape[2] + extra, held.shape[3])
                held = self._held = held.new_empty(shape)
            held[:, :, : kept.shape[2]] = kept
            self._start, self._end = 0, kept.shape[2]
        return held, max(self._end - self._shown, self._start), self._end

    def written(self, count: int) -> None:
        """Say that so many more positions were written behind the latest."""
        self._end += count
        self._start = max(self._end - self._keep, self._start)

    def latest(self, like: Float[Tensor, "B K T C"]) -> Float[Tensor, "B K n C"]:
        """Return the positions kept; `like` gives the type where there are none yet."""
        if self._held is None:
            return like[:, :, :0]
        return self._held[:, :, self._start : self._end]

    def drop(self, count: int) -> None:
        self._end -= count
        assert self._end >= self._start

    def join(self, other: "_Latest") -> None:
        """Put the rows of another, which has read as much, after one's own."""
        one, two = self.latest(self.some), other.latest(other.some)
        count = min(one.shape[2], two.shape[2])
        rows = one.shape[0] + two.shape[0]
        held = self.some.new_empty(rows, *self.some.shape[1:])
        held[: one.shape[0], :, :count] = one[:, :, one.shape[2] - count :]
        held[one.shape[0] :, :, :count] = two[:, :, two.shape[2] - count :]
        self._held, self._start, self._end = held, 0, count

    def select(self, rows: Int[Tensor, " R"]) -> None:
        if self._held is not None:
            self._held = self._held.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        return 0 if self._held is None else self._held.nbytes
