"""Room for positions in a file that is mapped into memory, and that nobody else ever sees."""

import mmap
import os
import tempfile
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.errors import UserError
from coterie.generate.cache.buffer import Buffer

_DROP = getattr(mmap, "MADV_DONTNEED", None)
_FETCH = getattr(mmap, "MADV_WILLNEED", None)


class MappedBuffer(Buffer):
    """Positions of one tensor in a file without a name: it goes with the process, however it ends.

    The system writes to the disk what it likes and reads it again when it is asked for.
    """

    def __init__(self, room: int, folder: Path) -> None:
        super().__init__(room)
        self._folder = folder
        self._map: mmap.mmap | None = None

    def _zeros(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        if like.device.type != "cpu":
            raise UserError(
                f"cache=spilled keeps positions in a file, and the model is on {like.device.type}.",
                hint="Use device=cpu, or cache=full or quantised.",
            )
        count = torch.Size(shape).numel()
        size = max(count * like.element_size(), 1)
        with explain_disk_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                # Taken now: a disk that is full while pages are written kills the process.
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)
        return torch.frombuffer(self._map, dtype=like.dtype, count=count).view(shape)

    def _chosen(self, rows: Int[Tensor, " R"]) -> Tensor:
        before = self._held
        assert before is not None
        order = rows.tolist()
        chosen = self._zeros(before, (len(order), *before.shape[1:]))
        for row, source in enumerate(order):
            chosen[row, :, : len(self)] = before[source, :, : len(self)]
        return chosen

    def drop(self, keep: int) -> None:
        """Let go of the memory of all but the latest `keep` positions; the file has them."""
        self._advise(_DROP, keep)

    def fetch(self, keep: int) -> None:
        """Ask for the same positions to be read from the disk, without waiting."""
        self._advise(_FETCH, keep)

    def _advise(self, what: int | None, keep: int) -> None:
        if what is None or self._map is None or self._held is None or len(self) <= keep:
            return
        width = self._held.shape[3] * self._held.element_size()
        stride, length = self._held.shape[2] * width, (len(self) - keep) * width
        for run in range(self.rows * self._held.shape[1]):
            start = -(-run * stride // mmap.PAGESIZE) * mmap.PAGESIZE
            pages = (run * stride + length - start) // mmap.PAGESIZE
            if pages > 0:
                self._map.madvise(what, start, pages * mmap.PAGESIZE)
