"""Batches of windows as tensors, prepared ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from coterie.batch import IGNORE, TokenBatch
from coterie.data.tokens import TokenArray
from coterie.data.windows import Windows


class BatchLoader:
    """Training batches: number i is always the same one, whatever came before.

    A context manager; leaving it ends every thread that it began.
    """

    def __init__(
        self,
        tokens: TokenArray,
        context: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        prefetch: int = 2,
    ) -> None:
        """Prepare for batches of `batch_size` windows over all ranks.

        Args:
            tokens: the split to read.
            context: inputs per window.
            batch_size: windows per step over all ranks; this rank gets its share of them.
            seed: of the order of windows.
            rank, world: which share of how many.
            device: where the batches shall be; copies to a GPU start from pinned memory and do
                not wait.
            prefetch: batches kept ready by `iterate`.

        Raises:
            DataError: there are no tokens, or the batch cannot be shared by the ranks.
        """
        self._tokens = tokens
        self._windows = Windows(len(tokens), context, seed)
        self._share = (batch_size, rank, world)
        self._device = torch.device(device)
        self._prefetch = max(prefetch, 1)
        self._running: set[_Ahead] = set()
        self._windows.starts(0, *self._share)  # refuses what cannot be shared, now

    def batch(self, index: int) -> TokenBatch:
        """Return batch number `index`: a pure function of the number and the loader's settings."""
        starts = self._windows.starts(index, *self._share)
        windows = self._tokens.gather(starts, self._windows.context + 1)
        return TokenBatch(self._tensor(windows[:, :-1]), self._tensor(windows[:, 1:]))

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        """Return numbers [B, T] as an int64 tensor on the loader's device."""
        tensor = torch.from_numpy(numbers.astype(np.int64))
        if self._device.type == "cpu":
            return tensor
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def iterate(self, start: int = 0) -> Iterator[TokenBatch]:
        """Yield the batches from number `start` on, without end, prepared in a thread.

        What goes wrong in the thread is raised here.
        """
        ahead = _Ahead(self, start, self._prefetch)
        self._running.add(ahead)
        try:
            while True:
                yield ahead.next()
        finally:
            ahead.stop()
            self._running.discard(ahead)

    def close(self) -> None:
        """End all threads begun by `iterate`."""
        for ahead in list(self._running):
            ahead.stop()
        self._running.clear()

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Ahead:
    """A thread that keeps a few batches ready."""

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


def evaluation_batches(tokens: TokenArray, context: int, batch_size: int) -> Iterator[TokenBatch]:
    """Yield a whole split in consecutive windows; each token after the first is a target once.

    The last window is padded with token 0 and the target `IGNORE`; the last batch may have fewer
    rows. Fewer than two tokens yield nothing.

    Args:
        tokens: the split.
        context: inputs per window, T.
        batch_size: windows per batch, B.
    """
    assert context > 0
    assert batch_size > 0
    pairs = len(tokens) - 1
    for first in range(0, pairs, context * batch_size):
        last = min(first + context * batch_size, pairs)
        rows = -(-(last - first) // context)
        inputs = np.zeros(rows * context, dtype=np.int64)
        targets = np.full(rows * context, IGNORE, dtype=np.int64)
        read = tokens.copy(first, last + 1)
        inputs[: last - first] = read[:-1]
        targets[: last - first] = read[1:]
        yield TokenBatch(
            torch.from_numpy(inputs.reshape(rows, context)),
            torch.from_numpy(targets.reshape(rows, context)),
        )
