"""One long row of tokens that lies in several memory-mapped files, read without copying."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from coterie.data.shards import ShardFile
from coterie.foundation.errors import StoreError


class TokenArray:
    """The tokens of a split, as if they lay in one array of its dtype [N].

    Reading a slice inside one shard copies nothing. The row is also a ring: `fill` goes on at the
    beginning where it reaches the end.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        shard_tokens: int | None = None,
        vocab_size: int | None = None,
        files: Sequence[ShardFile] = (),
        starts: Callable[[], np.ndarray] | None = None,
    ) -> None:
        """Join shards; all but the last must hold `shard_tokens` tokens.

        With `files`, one for each shard, whole windows are read from those and not from memory.

        Every token that is read must lie below `vocab_size`: an embedding indexed beyond its end
        fails late and in other words, on a GPU without any. `starts` reads where the documents
        begin, when that is first needed; without it all tokens are one document.
        """
        self._shards = [np.asarray(shard) for shard in shards]
        self._length = sum(len(shard) for shard in self._shards)
        self._shard_tokens = shard_tokens or max(self._length, 1)
        assert all(len(shard) == self._shard_tokens for shard in self._shards[:-1])
        self._vocab_size = vocab_size
        self._files = list(files)
        self._read_starts = starts
        self._views: dict[int, np.ndarray] = {}
        self.dtype = self._shards[0].dtype if self._shards else np.dtype(np.uint16)

    def __len__(self) -> int:
        return self._length

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Where each document begins, int64 [documents], held in memory.

        Document i reaches to where the next one begins; its last token is then the separator.

        Raises:
            StoreError: they cannot be read, or do not rise from 0.
        """
        if self._read_starts is not None:
            return self._read_starts()
        return np.zeros(min(self._length, 1), dtype=np.int64)

    def length_counts(self) -> list[int]:
        """Return how many documents have 2^i to below 2^(i+1) tokens, for each i."""
        # Read anew and not kept, for a packing may need none.
        starts = self.starts if self._read_starts is None else self._read_starts()
        lengths = np.diff(starts, append=self._length + 1) - 1  # without separators
        return np.bincount(np.frexp(lengths[lengths > 0])[1] - 1).tolist()

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> np.ndarray: ...
    def __getitem__(self, key: int | slice) -> int | np.ndarray:
        """Return one token, or a slice (a view where it lies in one shard, else a copy)."""
        if isinstance(key, slice):
            start, stop, step = key.indices(self._length)
            whole = self._range(start, max(stop, start)) if step > 0 else self._range(0, len(self))
            return whole[::step] if step > 0 else whole[key]
        position = key + self._length if key < 0 else key
        if not 0 <= position < self._length:
            raise IndexError(f"token {key} of {self._length}")
        shard, place = divmod(position, self._shard_tokens)
        return int(self._checked(self._shards[shard][place : place + 1])[0])

    def _range(self, start: int, stop: int) -> np.ndarray:
        parts = [self._part(begin, end) for begin, end in self._bounds(start, stop)]
        if len(parts) == 1:
            return self._checked(parts[0])
        return self._checked(np.concatenate(parts)) if parts else np.empty(0, dtype=self.dtype)

    def _checked(self, tokens: np.ndarray) -> np.ndarray:
        """Return tokens that were read, of any shape.

        Raises:
            StoreError: one lies outside the vocabulary.
        """
        if self._vocab_size is not None and tokens.max(initial=0) >= self._vocab_size:
            raise StoreError(
                f"A token of the store is {int(tokens.max()):,}, outside the vocabulary of "
                f"{self._vocab_size:,}: the store is damaged.",
                hint="coterie data verify STORE says where; then prepare it again.",
            )
        return tokens

    def _part(self, start: int, stop: int) -> np.ndarray:
        shard = start // self._shard_tokens
        first = shard * self._shard_tokens
        return self._shards[shard][start - first : stop - first]

    def _bounds(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the stretches of [start, stop), each inside one shard."""
        size = self._shard_tokens
        inner = range((start // size + 1) * size, stop, size)
        edges = [start, *inner, stop]
        return [(a, b) for a, b in itertools.pairwise(edges) if a < b]

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return the stretches of `length` tokens that begin at `starts`, [B, length].

        Raises:
            StoreError: a token lies outside the vocabulary.
        """
        if (
            not self._files
            and len(self._shards) == 1
            and int(starts.max()) + length <= self._length
        ):
            return self._checked(self._stretches(length)[starts])
        rows = np.empty((len(starts), length), dtype=self.dtype)
        for row, start in zip(rows, starts.tolist(), strict=True):
            self.fill(row, start)
        return self._checked(rows)

    def concatenated(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return stretches of `lengths` tokens that begin at `starts`, one after another, [ΣL].

        Raises:
            StoreError: a token lies outside the vocabulary.
        """
        ends = np.cumsum(lengths)
        out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=self.dtype)
        begin = 0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self.fill(out[begin:end], start)
            begin = end
        return self._checked(out)

    def _stretches(self, length: int) -> np.ndarray:
        """Return every stretch of the only shard, without a copy, [N - length + 1, length]."""
        if length not in self._views:
            self._views[length] = sliding_window_view(self._shards[0], length)
        return self._views[length]

    def fill(self, out: np.ndarray, start: int) -> None:
        """Copy tokens from `start` on into `out` [T], going round at the end of the row."""
        wanted = len(out)
        if start + wanted <= self._length:
            shard, place = divmod(start, self._shard_tokens)
            content = self._shards[shard]
            if place + wanted <= len(content):  # nearly always: no detour through slices
                self._copy(out, shard, place)
                return
        done = 0
        while done < wanted:
            begin = (start + done) % self._length
            end = min(begin + wanted - done, self._length)
            for first, last in self._bounds(begin, end):
                shard, place = divmod(first, self._shard_tokens)
                self._copy(out[done : done + last - first], shard, place)
                done += last - first
        self._checked(out)

    def copy(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of the tokens from `start` to before `stop`, as `fill` reads them."""
        out = np.empty(stop - start, dtype=self.dtype)
        if len(out):
            self.fill(out, start)
        return self._checked(out)

    def _copy(self, out: np.ndarray, shard: int, place: int) -> None:
        if not self._files:
            out[:] = self._shards[shard][place : place + len(out)]
        elif out.dtype == self.dtype and out.flags.c_contiguous:
            self._files[shard].read_into(out, place)
        else:
            own = np.empty(len(out), dtype=self.dtype)
            self._files[shard].read_into(own, place)
            out[:] = own
