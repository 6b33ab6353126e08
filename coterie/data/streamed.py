"""Rows of a stream: block by block, each tokenized in a thread while the one before is read.

A block is as many documents as have some number of characters, from one epoch; its rows are
shuffled. Which documents, rows and order it has follows from the source and the seed alone, so row
n is always the same, and to go on at row n takes no more than the place where its block begins.
"""

from __future__ import annotations

import bisect
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coterie.batch import TokenBatch
from coterie.data.encode import encode_pieces
from coterie.data.packing import Packing
from coterie.data.packing.rows import Rows
from coterie.data.sources import HOW_TO_SKIP
from coterie.data.split import Piece
from coterie.data.streaming import Place, StreamedTexts, Tell, refuse_other
from coterie.data.tokens import TokenArray
from coterie.data.writer import dtype_for
from coterie.foundation.errors import DataError, TokenizerError
from coterie.tokenizer.interface import Tokenizer

_MARKS = 1 << 12  # blocks whose beginnings are remembered; batches are prepared a few steps ahead


@dataclass(frozen=True)
class Mark:
    """Where a block begins.

    Attributes:
        row: its first, through all epochs.
        block: its number; epoch: in which it lies, from 0.
        place: of its first document in the epoch, or of one before.
        digest: SHA-256 of its tokens and where its documents begin; "" if it is not read yet.
    """

    row: int = 0
    block: int = 0
    epoch: int = 0
    place: tuple[int, int, int] = Place()
    digest: str = ""


@dataclass(frozen=True)
class _Block:
    mark: Mark
    rows: Rows
    tokens: int
    next: Mark


class StreamedRows:
    """The rows of a stream, numbered through all epochs, each a pure function of its number.

    They are meant to be read in order, or from a place that `go_on` names: what lies before the
    blocks in memory is read again from the beginning.

    Attributes:
        tell: told by `announce` in a sentence what happened.
    """

    count = once = 1 << 62  # there is always a next one
    padding = 0.0  # not known before

    def __init__(
        self, texts: StreamedTexts, tokenizer: Tokenizer, packing: Packing, shape: tuple[int, int],
        seed: int,
    ) -> None:  # fmt: skip
        """Prepare to read.

        Args:
            texts: what is read, epoch after epoch.
            tokenizer: what makes its tokens.
            packing: how the documents of a block become rows; windows are read once.
            shape: tokens of a row, and characters of a block.
            seed: of the order of rows.
        """
        once = {"windows": "once"} if hasattr(packing, "windows") else {}
        self.tell: Tell = lambda said: None
        self._packing = packing.model_copy(update=once)
        self._texts, self._tokenizer, self._seed = texts, tokenizer, seed
        self._context, self._size = shape
        self._marks = [Mark()]
        self._blocks: deque[_Block] = deque(maxlen=2)
        self._pool: ThreadPoolExecutor | None = None
        self._coming: Future[_Block | None] | None = None
        self._news: deque[str] = deque()
        self._known = texts.sources.known()

    def rows(self, first: int, count: int) -> TokenBatch:
        """Return rows; see `Rows`.

        Raises:
            DataError: the text cannot be read, or is not what it was.
        """
        parts = []
        while count:
            block = self._block_of(first)
            begin = first - block.mark.row
            taken = min(count, block.rows.once - begin)
            parts.append(block.rows.rows(begin, taken))
            first, count = first + taken, count - taken
        return TokenBatch.concatenate(parts)

    def position(self, row: int) -> dict[str, Any]:
        """Return what `go_on` needs to go on with a row near those read last, as JSON values."""
        at = bisect.bisect_right([mark.row for mark in self._marks], row) - 1
        assert at >= 0, "a row that far back is not asked for"
        return {**asdict(self._marks[at]), "files": self._known}

    def go_on(self, position: dict[str, Any]) -> None:
        """Read from a position on, as if all before had been read.

        Raises:
            DataError: the sources are others than when it was taken.
        """
        values = dict(position)
        refuse_other(values.pop("files"), self._texts.sources)
        self.close()
        self._marks = [Mark(**{**values, "place": tuple(values["place"])})]

    def announce(self) -> None:
        """Tell, in the thread of the caller, what happened since the last time."""
        while self._news:
            self.tell(self._news.popleft())

    def close(self) -> None:
        """End the thread; reading begins anew where it is asked to."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._coming = None
        self._blocks.clear()

    def _block_of(self, row: int) -> _Block:
        """Return the block with a row, and begin to read the one after the latest."""
        if self._blocks and row < self._blocks[0].mark.row:
            self.close()
        if self._pool is None:
            at = bisect.bisect_right([mark.row for mark in self._marks], row) - 1
            self._start(self._marks[at] if at >= 0 else Mark())
        while not self._blocks or row >= self._blocks[-1].next.row:
            assert self._coming is not None
            block = self._coming.result()
            assert block is not None, "a stream has no end"
            self._blocks.append(block)
            self._note(block.mark)
            self._note(block.next)
            self._fetch()
        return next(b for b in reversed(self._blocks) if b.mark.row <= row)

    def _start(self, mark: Mark) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="coterie-stream")
        self._reading = self._read(mark)
        self._fetch()

    def _fetch(self) -> None:
        assert self._pool is not None
        self._coming = self._pool.submit(next, self._reading, None)

    def _note(self, mark: Mark) -> None:
        """Remember where a block begins, in order."""
        at = bisect.bisect_left([each.row for each in self._marks], mark.row)
        if at == len(self._marks) or self._marks[at].row != mark.row:
            self._marks.insert(at, mark)
        elif mark.digest:
            self._marks[at] = mark
        del self._marks[:-_MARKS]

    def _read(self, mark: Mark) -> Iterator[_Block]:
        """Yield blocks from a mark on, epoch after epoch."""
        while True:
            begun, documents, read = mark, 0, 0
            for pieces, behind in self._cut(Place(*mark.place)):
                block = self._built(mark, pieces, behind)
                documents, read, mark = documents + len(pieces), read + block.tokens, block.next
                yield block
            if mark == begun and begun.place == Place():
                left_out = self._texts.sources.report.problems[:1]
                why = f" The first problem: {left_out[0]}" if left_out else ""
                raise DataError(f"The stream holds no text to train on.{why}")
            self._news.append(self._ended(mark, begun, documents, read))
            mark = Mark(mark.row, mark.block, mark.epoch + 1)

    def _cut(self, place: Place) -> Iterator[tuple[list[Piece], Place]]:
        """Yield the documents of each block of an epoch, and the place behind them."""
        pieces: list[Piece] = []
        size = 0
        behind = place
        for at, document in self._texts.after(place, self._news.append):
            pieces.append(Piece("train", document))
            size += len(document.text)
            behind = at._replace(document=at.document + 1)
            if size >= self._size:
                yield pieces, behind
                pieces, size = [], 0
        if pieces:
            yield pieces, behind

    def _built(self, mark: Mark, pieces: list[Piece], behind: Place) -> _Block:
        """Return the block that begins at a mark."""
        array, digest = self._tokens(pieces)
        if mark.digest not in ("", digest):
            raise DataError(
                f"{pieces[0].document.name} and what follows is not what the stream read before.",
                hint="Restore the text, or start a new run.",
            )
        if len(array) < 2:  # nothing that the tokenizer takes
            rows: Rows = _NoRows()
        else:
            seed = hashlib.sha256(f"{self._seed}\0{mark.block}".encode()).digest()[:7]
            rows = self._packing.build(array, self._context, int.from_bytes(seed, "little"))
        own = Mark(mark.row, mark.block, mark.epoch, mark.place, digest)
        after = Mark(mark.row + rows.once, mark.block + 1, mark.epoch, behind)
        return _Block(own, rows, len(array), after)

    def _tokens(self, pieces: list[Piece]) -> tuple[TokenArray, str]:
        """Return documents as tokens, each with a separator behind it, and their SHA-256."""
        sources, documents = self._texts.sources, list[list[np.ndarray]]()
        end = np.array([self._tokenizer.end_of_text], dtype=np.uint32)
        failed = ""
        for piece in encode_pieces(pieces, self._tokenizer):
            if piece.problem and sources.reading.on_error == "stop":
                raise TokenizerError(f"{piece.name}: {piece.problem}.", hint=HOW_TO_SKIP)
            if piece.starts:
                documents.append([])
                failed = ""
            if piece.problem and not failed:
                failed = f"{piece.name}: {piece.problem}"
                sources.report.add(failed, piece.name)
            documents[-1] = [] if failed else [*documents[-1], piece.tokens]
        whole = [np.concatenate([*each, end]) for each in documents if sum(map(len, each))]
        tokens = np.concatenate(whole or [end[:0]]).astype(dtype_for(self._tokenizer))
        begins = np.cumsum([0, *map(len, whole)])[:-1]
        digest = hashlib.sha256(tokens.tobytes() + begins.tobytes()).hexdigest()
        return TokenArray([tokens], starts=lambda: begins), digest

    def _ended(self, mark: Mark, begun: Mark, documents: int, tokens: int) -> str:
        report = self._texts.sources.report
        left_out = f"; {report.skipped:,} rows or files were left out" if report.skipped else ""
        since = " since the run was resumed" if begun.place != Place() else ""
        return (
            f"Epoch {mark.epoch + 1:,} of the stream has ended; it begins anew: {documents:,} "
            f"documents, {tokens:,} tokens{since}{left_out}."
        )


class _NoRows:
    """The rows of a block without a document that the tokenizer takes."""

    count = once = 0
    padding = 0.0

    def rows(self, first: int, count: int) -> TokenBatch:
        raise AssertionError("there is none")
