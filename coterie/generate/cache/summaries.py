"""The cache of a layer that replaces finished runs of positions by a few summaries of them.

It holds the summaries of all finished runs and the keys and values of the run that is still going
on, so that its memory grows with the summaries and not with the text. Every cache kind uses it for
such layers: what is left out of it, the layer could not do without.
"""

from copy import copy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.buffer import Buffer
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import KeyLayout, UnevenRows

_FIRST_ROOM = 16
_BUFFERS = ("_keys", "_values", "_summary_keys", "_summary_values")


class _Run(NamedTuple):
    """The keys and values of a finished run, and how many summaries stand for it."""

    keys: Tensor
    values: Tensor
    summaries: int


class RunPlacement(NamedTuple):
    """Where runs and summaries lie; valid until the next call of anything.

    Attributes:
        rows: of each row the position that its run begins with, its number of summaries, then the
            addresses and the strides between heads, in elements, of the run's keys and values and
            of the summaries' keys and values.
        held: what the addresses point to.
    """

    rows: Int[Tensor, "B 10"]
    held: tuple[Tensor, ...]

    def words(self) -> tuple[int, ...]:
        """Return what kernels find the rows by, as many words as other placements have."""
        return self.rows.data_ptr(), 0, 0, 0, 0, 0, 0, 0, 0


class SummaryLayerCache:
    """Keys and values of one layer: the latest positions, and summaries of all before them.

    Args:
        run: positions of one run; needed where some may be taken back.
        rollback: how many of the latest positions may be taken back.
        number: summaries of one run; needed where others write them.
    """

    def __init__(self, run: int = 0, rollback: int = 0, number: int = 0) -> None:
        assert run or not rollback, "runs of unknown length cannot be taken back"
        self._run, self._rollback, self._number_of = run, rollback, number
        self._keys, self._values = Buffer(_FIRST_ROOM), Buffer(_FIRST_ROOM)
        self._summary_keys, self._summary_values = Buffer(_FIRST_ROOM), Buffer(_FIRST_ROOM)
        self._forgotten = 0
        self._length = 0
        self._finished: list[_Run] = []  # the latest, while they may have to come back
        self._rows: list[SummaryLayerCache] | None = None  # once rows have read unequally much

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        """Add T positions; return all that are not summarised."""
        assert rows is None, "rows that differ are appended one by one"
        self._length += keys.shape[2]
        layout = KeyLayout(start_position=self._forgotten)
        return self._keys.append(keys), self._values.append(values), layout

    def row(self, row: int, rows: int) -> "SummaryLayerCache":
        return self._split(rows)[row]

    def _split(self, rows: int) -> "list[SummaryLayerCache]":
        if self._rows is None:
            self._rows = [self._alone(number) for number in range(rows)]
            self.clear()
        return self._rows

    def _alone(self, row: int) -> "SummaryLayerCache":
        other = copy(self)
        for name in _BUFFERS:
            setattr(other, name, getattr(self, name).row(row))
        other._finished = [
            _Run(each.keys[row : row + 1], each.values[row : row + 1], each.summaries)
            for each in self._finished
        ]
        return other

    def clear(self) -> None:
        """Forget everything but the caches of single rows."""
        for buffer in self._buffers():
            buffer.forget(len(buffer))
        self._forgotten = 0
        self._finished = []

    def summarise(
        self, count: int, keys: Float[Tensor, "B K L C"], values: Float[Tensor, "B J L E"]
    ) -> None:
        self._summary_keys.append(keys)
        self._summary_values.append(values)
        self._forget(count, keys.shape[2])

    def _forget(self, count: int, summaries: int) -> None:
        """Forget the oldest positions, for which so many summaries stand."""
        if self._rollback:
            self._remember(count, summaries)
        self._keys.forget(count)
        self._values.forget(count)
        self._forgotten += count

    @property
    def placeable(self) -> bool:
        """Whether kernels can read and write it."""
        return self._number_of > 0

    @property
    def left(self) -> int:
        """How many positions may be written until a run is finished."""
        return min(self._run - len(each._keys) for each in self._rows or [self])

    def placed(self, extra: int, past: tuple[int, ...]) -> RunPlacement:
        """Return where runs and summaries are, with room for `extra` positions and a summary."""
        rows, held = [], []
        for each in self._rows or [self]:
            groups = [
                (each._keys, each._summary_keys, extra),
                (each._values, each._summary_values, extra),
                (each._summary_keys, each._keys, self._number_of),
                (each._summary_values, each._values, self._number_of),
            ]
            tensors = [one.room_for(more, other.all()) for one, other, more in groups]
            held += tensors
            for row in range(len(tensors[0])):
                words = [each._forgotten, len(each._summary_keys)]
                for tensor in tensors:
                    words += [tensor[row].data_ptr(), tensor.stride(1)]
                rows.append(words)
        return RunPlacement(torch.tensor(rows), tuple(held))

    def written(self, past: tuple[int, ...]) -> None:
        """Say how many positions each row has read now; finished runs have been summarised."""
        if self._rows is not None:
            for row, length in zip(self._rows, past, strict=True):
                row.written((length,))
            return
        used = len(self._keys) + past[0] - self._length
        self._length = past[0]
        assert used <= self._run
        for buffer in (self._keys, self._values):
            buffer.resize(used)
        if used == self._run:
            for buffer in (self._summary_keys, self._summary_values):
                buffer.resize(len(buffer) + self._number_of)
            self._forget(used, self._number_of)

    def _remember(self, count: int, summaries: int) -> None:
        """Keep the runs that are about to be forgotten, as far as they may have to come back."""
        held_keys, held_values = self._keys.all(), self._values.all()
        assert held_keys is not None
        assert held_values is not None
        size, number = self._run, count // self._run
        for start in range(0, count, size):
            part = slice(start, start + size)
            runs = held_keys[:, :, part].clone(), held_values[:, :, part].clone()
            self._finished.append(_Run(*runs, summaries // number))
        # A run comes back when one of its positions is taken back.
        most = -(-self._rollback // size)
        del self._finished[: max(len(self._finished) - most, 0)]

    def summaries(self) -> tuple[Float[Tensor, "B K L C"], Float[Tensor, "B J L E"]] | None:
        keys, values = self._summary_keys.all(), self._summary_values.all()
        return None if keys is None or values is None else (keys, values)

    def join(self, other: Any) -> None:
        split = self._rows is not None or other._rows is not None
        if split or self._length != other._length:
            self._split(self._number()).extend(other._split(other._number()))
            return
        for own, more in zip(self._buffers(), other._buffers(), strict=True):
            own.join(more)
        count = min(len(self._finished), len(other._finished))
        pairs = zip(_last(self._finished, count), _last(other._finished, count), strict=True)
        self._finished = [
            _Run(torch.cat((a.keys, b.keys)), torch.cat((a.values, b.values)), a.summaries)
            for a, b in pairs
        ]

    def _number(self) -> int:
        return max(buffer.rows for buffer in self._buffers())

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on.

        Raises:
            ValueError: what stood before is not kept any more, or was of another document.
        """
        if self._rows is not None or len(set(lengths)) > 1:
            for row, length in zip(self._split(len(lengths)), lengths, strict=True):
                row.truncate((length,))
            return
        count, self._length = self._length - lengths[0], lengths[0]
        while count > len(self._keys):
            if not self._finished:
                raise ValueError(
                    f"{count} positions cannot be taken back: their document has ended, or the "
                    f"cache was built with rollback={self._rollback}"
                )
            self._bring_back(self._finished.pop())
        for buffer in (self._keys, self._values):
            buffer.resize(len(buffer) - count)

    def _bring_back(self, run: _Run) -> None:
        """Put the positions of the latest run in the place of their summaries."""
        pairs = ((self._keys, run.keys), (self._values, run.values))
        for buffer, before in pairs:
            after = buffer.all()
            after = None if after is None else after.clone()
            buffer.forget(len(buffer))
            buffer.append(before)
            if after is not None:
                buffer.append(after)
        for buffer in (self._summary_keys, self._summary_values):
            buffer.resize(len(buffer) - run.summaries)
        self._forgotten -= self._run

    def select(self, rows: Int[Tensor, " R"]) -> None:
        if self._rows is not None:
            order = rows.tolist()
            once = len(set(order)) == len(order)
            self._rows = [self._rows[row] if once else self._rows[row]._alone(0) for row in order]
        for buffer in self._buffers():
            buffer.select(rows)
        self._finished = [
            _Run(each.keys.index_select(0, rows), each.values.index_select(0, rows), each.summaries)
            for each in self._finished
        ]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes, summaries and single positions."""
        own = sum(buffer.nbytes for buffer in self._buffers())
        own += sum(each.keys.nbytes + each.values.nbytes for each in self._finished)
        return own + sum(each.nbytes for each in self._rows or ())

    def _buffers(self) -> tuple[Buffer, ...]:
        return tuple(getattr(self, name) for name in _BUFFERS)


def _last(runs: list[_Run], count: int) -> list[_Run]:
    return runs[len(runs) - count :]
