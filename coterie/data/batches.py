"""Batches of windows as tensors, prepared ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.data.augment import Augmentation
from coterie.data.curriculum import Stages
from coterie.data.mix import Mix, Proportional, Share, Source
from coterie.data.packing import Packing, Stream
from coterie.data.packing.rows import Rows
from coterie.data.streamed import StreamedRows
from coterie.data.tokens import TokenArray

_STREAM, _BY_SIZE = Stream(), Proportional()
_AHEAD = 2  # batches kept ready, unless told otherwise
_PLACES, _AROUND = 41, 8  # where a mixture is looked at, and over how many batches
_MOST_STEPS, _ROUNDING = 1 << 40, 1e-9


@dataclass(frozen=True)
class Reading:
    """What a run reads.

    Attributes:
        tokens: of all splits that it reads from; None: of a stream, which it does not know.
        times: how often each is read in the mean, over all sources alike.
        padding: share of the places in its rows that hold no token.
        places: all places of its rows.
    """

    tokens: int | None
    times: float
    padding: float
    places: int = 0

    @property
    def told(self) -> str:
        """All of it in words."""
        if self.tokens is None:
            return f"about {self.places:,} tokens of a stream"
        padding = f"; {self.padding:.1%} of the places are padding" if self.padding else ""
        return f"{self.tokens:,} tokens, each read {self.times:.3g} times{padding}"


@dataclass(frozen=True)
class Mixture:
    """What a run reads of its sources.

    Attributes:
        lengths: of each source, how many documents have 2^i to below 2^(i+1) tokens, by i.
        steps: where the shares are taken, over all steps of the run.
        shares: of each source, its share of the rows of the steps that follow those.
    """

    lengths: dict[str, list[int]]
    steps: list[int]
    shares: dict[str, list[float]]


class BatchLoader:
    """Training batches: number i is always the same one, whatever came before.

    A context manager; leaving it ends every thread that it began.
    """

    def __init__(
        self,
        sources: TokenArray | Sequence[TokenArray] | Mapping[str, TokenArray] | StreamedRows,
        context: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        packing: Packing = _STREAM,
        mix: Mix | None = None,
        augment: Sequence[Augmentation] = (),
        stages: Stages | None = None,
    ) -> None:
        """Prepare for batches of `batch_size` rows over all ranks.

        Args:
            sources: the split to read, or those to mix, which may have names; or a stream of rows
                of this context, which the loader closes.
            context: inputs per row.
            batch_size: rows per step over all ranks; this rank gets its share of them.
            seed: of the order of rows.
            rank, world: which share of how many.
            device: where the batches go; copies to a GPU start from pinned memory without waiting.
            packing: how documents become rows.
            mix: which source each row comes from; None: by their sizes.
            augment: what rows go through, in this order.
            stages: how long and how many rows are step by step, in how many micro-batches, of each
                of which every rank gets its share; None: as above, always.

        Raises:
            DataError: there are no tokens, or the batch cannot be shared by the ranks.
        """
        self._stream = sources if isinstance(sources, StreamedRows) else None
        named: dict[str, TokenArray | StreamedRows]
        if isinstance(sources, Mapping):
            named = dict(sources)
        else:
            several = [sources] if isinstance(sources, TokenArray | StreamedRows) else sources
            named = {str(number): tokens for number, tokens in enumerate(several)}
        self._sources = named
        arrays = [each for each in named.values() if isinstance(each, TokenArray)]
        self._tokens = None if self._stream else sum(map(len, arrays))
        self._stages = stages or Stages(context, batch_size)
        lengths = {stage.context for stage in self._stages.stages}
        self._mixed = {
            length: _Mixed(named, length, seed, packing, mix or _BY_SIZE) for length in lengths
        }
        self._ranks = (rank, world)
        self._pieces = self._stages.unit if world > 1 else 1
        self._augment = tuple(augment)
        self._device = torch.device(device)
        self._running: set[_Ahead] = set()
        for stage in self._stages.stages:  # refuses what cannot be shared, now
            self._mixed[stage.context].mixer.shares(0, stage.rows // self._pieces, *self._ranks)

    def batch(self, index: int) -> TokenBatch:
        """Return batch number `index`: a pure function of the number and the loader's settings."""
        stage = self._stages.of(index)
        mixed, (rank, world) = self._mixed[stage.context], self._ranks
        # Rows of one length go on where they were left.
        step = stage.before + index - stage.first
        rows, read = stage.rows // self._pieces, []
        for piece in range(self._pieces):
            shares = mixed.mixer.shares(step * self._pieces + piece, rows, rank, world)
            part = mixed.read(shares)
            for augment in self._augment:
                part = augment(part, index, piece * rows + rank * (rows // world))
            read.append(part)
        batch = read[0] if len(read) == 1 else TokenBatch.concatenate(read)
        if self._device.type == "cpu":
            return batch
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self._device, non_blocking=True)

    def require(self, batches: int) -> None:
        """Make sure that there are so many batches.

        Raises:
            DataError: the mixer says that every source is used up before.
        """
        for stage, count in self._stages.until(batches):
            last = stage.before + count - 1
            self._mixed[stage.context].mixer.shares(last, stage.rows, *self._ranks)

    def reading(self, batches: int) -> Reading:
        """Return what so many batches read of what there is."""
        rows = [
            (self._mixed[s.context], s, count * s.rows) for s, count in self._stages.until(batches)
        ]
        places = sum(stage.context * count for _, stage, count in rows)
        if self._tokens is None:
            return Reading(None, 1.0, 0.0, places)
        held = sum(stage.context * count * (1 - mixed.padding) for mixed, stage, count in rows)
        return Reading(self._tokens, held / self._tokens, 1 - held / max(places, 1))

    @property
    def epoch_steps(self) -> int:
        """The fewest batches that hold as many tokens as there are: one epoch.

        With `whole` packing, or windows that are read once, that is each token once. Of several
        sources, together: the mix decides how often each one is read.
        """

        def times(steps: int) -> float:
            return self.reading(steps).times

        return 1 + bisect_left(range(1, _MOST_STEPS), 1 - _ROUNDING, key=times)

    def mixture(self, batches: int) -> Mixture:
        """Return what the documents of each source are, and the shares of sources step by step."""
        places = np.unique(np.linspace(0, max(batches - 1, 0), _PLACES).astype(np.int64)).tolist()
        rows = np.array([self._rows_at(place, batches) for place in places], dtype=np.float64)
        shares = rows / rows.sum(axis=1, keepdims=True)
        return Mixture(
            lengths={
                name: tokens.length_counts()
                for name, tokens in self._sources.items()
                if isinstance(tokens, TokenArray)
            },
            steps=places,
            shares=dict(zip(self._sources, shares.T.tolist(), strict=True)),
        )

    def _rows_at(self, first: int, batches: int) -> list[int]:
        """Return how many rows of each source there are in some batches from `first` on."""
        counts = [0] * len(self._sources)
        for index in range(first, min(first + _AROUND, max(batches, 1))):
            stage = self._stages.of(index)
            step = stage.before + index - stage.first
            for share in self._mixed[stage.context].mixer.shares(step, stage.rows, 0, 1):
                counts[share.source] += share.count
        return counts

    def iterate(self, start: int = 0, ready: int = _AHEAD) -> Iterator[TokenBatch]:
        """Yield the batches from number `start` on, without end, prepared in a thread.

        As many as `ready` are prepared before they are asked for.
        What goes wrong in the thread is raised here.
        """
        ahead = _Ahead(self, start, ready)
        self._running.add(ahead)
        try:
            while True:
                batch = ahead.next()
                if self._stream:
                    self._stream.announce()
                yield batch
        finally:
            ahead.stop()
            self._running.discard(ahead)

    def close(self) -> None:
        """End all threads begun by `iterate`."""
        for ahead in list(self._running):
            ahead.stop()
        self._running.clear()
        if self._stream:
            self._stream.close()

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Mixed:
    """The rows of all sources at one length, and who has which turn."""

    def __init__(
        self,
        sources: Mapping[str, TokenArray | StreamedRows],
        context: int,
        seed: int,
        packing: Packing,
        mix: Mix,
    ) -> None:
        self._rows: list[Rows] = [
            each if isinstance(each, StreamedRows) else packing.build(each, context, seed)
            for each in sources.values()
        ]
        facts = zip(sources.items(), self._rows, strict=True)
        named = [
            Source(name, rows.once if isinstance(each, StreamedRows) else len(each), rows.once)
            for (name, each), rows in facts
        ]
        self.mixer = mix.build(named, seed)
        places = [rows.count * context for rows in self._rows]
        empty = sum(size * rows.padding for size, rows in zip(places, self._rows, strict=True))
        self.padding = empty / max(sum(places), 1)

    def read(self, shares: Sequence[Share]) -> TokenBatch:
        """Return the rows of shares; those of a source follow one another and are read at once."""
        if len(self._rows) == 1:
            return self._rows[0].rows(shares[0].first, sum(share.count for share in shares))
        sources = np.repeat([s.source for s in shares], [s.count for s in shares])
        parts = []
        for source in np.unique(sources).tolist():
            first = next(share.first for share in shares if share.source == source)
            parts.append(self._rows[source].rows(first, int((sources == source).sum())))
        order = torch.from_numpy(np.argsort(np.argsort(sources, kind="stable"), kind="stable"))
        return replace(TokenBatch.concatenate(parts).take(order), sources=torch.from_numpy(sources))


class _Ahead:
    """A thread that keeps batches ready."""

    def __init__(self, loader: BatchLoader, start: int, size: int) -> None:
        self._loader = loader
        self._ready: queue.Queue[TokenBatch | BaseException] = queue.Queue(size)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(start,), name="coterie-batches", daemon=True
        )
        self._thread.start()

    def _work(self, index: int) -> None:
        while not self._stopped.is_set():
            try:
                item: TokenBatch | BaseException = self._loader.batch(index)
            except BaseException as error:  # handed to whoever waits for the batch
                item = error
            self._put(item)
            if isinstance(item, BaseException):
                return
            index += 1

    def _put(self, item: TokenBatch | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def next(self) -> TokenBatch:
        """Return the next batch, or raise what went wrong while preparing it."""
        while True:
            try:
                item = self._ready.get(timeout=0.1)
            except queue.Empty:
                if self._stopped.is_set():
                    raise RuntimeError("The batch loader was closed.") from None
                continue
            if isinstance(item, BaseException):
                raise item
            return item

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._thread.join()


def evaluation_batches(
    tokens: TokenArray, context: int, batch_size: int, packing: Packing = _STREAM,
    share: tuple[int, int] = (0, 1),
) -> Iterator[TokenBatch]:  # fmt: skip
    """Yield a whole split; each token that the packing can predict is a target once.

    With `stream` these are all tokens after the first, in consecutive windows; otherwise all that
    are not the first of a document. Rows are padded with token 0 and the target `IGNORE`; the last
    batch may have fewer rows. Fewer than two tokens yield nothing.

    Args:
        tokens: the split.
        context: inputs per row, T.
        batch_size: rows per batch, B.
        packing: how documents become rows.
        share: (rank, world): every world-th batch from number rank on. Each rank gets as many; of
            one that there is not, it gets the first without its targets.
    """
    assert context > 0
    assert batch_size > 0
    rows, (rank, world) = packing.build_evaluation(tokens, context), share
    for turn in range(0, rows.count, batch_size * world):
        first = turn + rank * batch_size
        if first < rows.count:
            yield rows.rows(first, min(batch_size, rows.count - first))
        else:
            spare = rows.rows(0, 1)
            yield replace(spare, targets=torch.full_like(spare.targets, IGNORE))
