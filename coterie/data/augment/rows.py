"""Rows of a batch read as one array of tokens and put together again, without loops.

What an augmentation makes of a row may be longer or shorter: it is cut at its width, or filled with
padding. A batch of a few thousand tokens takes tens of microseconds in each of these functions, the
most of it for the calls themselves, so they make few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from coterie.batch import IGNORE, TokenBatch

PADDING = -1
"""The document of what follows a row's last token."""


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the numbers from each start on, as many as its size says, one range after another."""
    ends = sizes.cumsum()
    result = (starts - ends + sizes).repeat(sizes)
    result += np.arange(len(result))
    return result


def sizes_of(starts: np.ndarray, end: int) -> np.ndarray:
    """Return how long the ranges are that begin at `starts`, the last of them up to `end`."""
    sizes = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=sizes[:-1])
    sizes[-1:] = end - starts[-1:]
    return sizes


@dataclass(frozen=True)
class Flat:
    """A batch as arrays of [B·T], and the runs of text in it.

    A run is of one row, and of one document where the batch tells them apart or the separator does.
    Padding at the end of a row is a run by itself.

    Attributes:
        batch: as it was.
        tokens, targets: its own, int64.
        begins: which places begin a run.
        live: which places hold text; None: all.
    """

    batch: TokenBatch
    tokens: np.ndarray
    targets: np.ndarray
    begins: np.ndarray
    live: np.ndarray | None

    @staticmethod
    def of(batch: TokenBatch, separator: int) -> Flat:
        """Take a batch apart; `separator` ends documents in rows that do not mark them."""
        assert batch.weights is None
        assert batch.positions is None
        tokens, targets = batch.tokens.numpy(), batch.targets.numpy()
        begins = np.ones(tokens.shape, dtype=bool)
        live = None
        if batch.documents is not None:
            documents = batch.documents.numpy()
            live = (documents != PADDING).ravel()
            np.not_equal(documents[:, 1:], documents[:, :-1], out=begins[:, 1:])
        else:
            np.equal(tokens[:, :-1], separator, out=begins[:, 1:])
            if (targets[:, -1] == IGNORE).any():
                ends = tokens.shape[1] - (targets != IGNORE)[:, ::-1].argmax(axis=1)
                begins[np.arange(len(ends)), ends % tokens.shape[1]] = True
                live = (np.arange(tokens.shape[1]) < ends[:, None]).ravel()
        return Flat(batch, tokens.ravel(), targets.ravel(), begins.ravel(), live)

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where each run begins and how long it is."""
        starts = self.begins.nonzero()[0]
        return starts, sizes_of(starts, len(self.begins))

    def with_rows(self, tokens: np.ndarray, targets: np.ndarray) -> TokenBatch:
        """Return the batch with other tokens and targets, as many as before."""
        return with_rows(self.batch, tokens, targets)


def followed(tokens: np.ndarray, begins: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return targets: the next token of the same run, at its end the one given in `last`.

    What is `IGNORE` in `last` stays so.
    """
    targets = last.copy()
    following = ~begins[1:]
    following &= last[:-1] != IGNORE
    np.copyto(targets[:-1], tokens[1:], where=following)
    return targets


def with_rows(batch: TokenBatch, tokens: np.ndarray, targets: np.ndarray) -> TokenBatch:
    """Return the batch with other tokens and targets, as many as before."""
    shape = batch.tokens.shape
    return replace(
        batch,
        tokens=torch.from_numpy(tokens.reshape(shape)),
        targets=torch.from_numpy(targets.reshape(shape)),
    )


def laid_out(
    batch: TokenBatch, tokens: np.ndarray, targets: np.ndarray, counts: np.ndarray
) -> TokenBatch:
    """Return a batch with rows of other lengths: cut at their width, or padded.

    Args:
        batch: the rows as they were.
        tokens, targets: of all rows, one after another.
        counts: how many of them come from each place, [B·T].
    """
    shape = rows, width = batch.tokens.shape
    lengths = counts.reshape(shape).sum(axis=1)
    ends = lengths.cumsum()
    kept = np.minimum(lengths, width)
    whole = int(kept.min()) == width
    taken = ranges(ends - lengths, kept)
    place = slice(None) if whole else ranges(np.arange(rows) * width, kept)

    def laid(values: np.ndarray, fill: int) -> np.ndarray:
        if whole:
            return values[taken]
        out = np.full(rows * width, fill)
        out[place] = values[taken]
        return out

    found = with_rows(batch, laid(tokens, 0), laid(targets, IGNORE))
    if batch.documents is None:
        return found
    documents = laid(batch.documents.numpy().ravel().repeat(counts), PADDING)
    return replace(found, documents=torch.from_numpy(documents.reshape(shape)))


def rewritten(
    batch: TokenBatch,
    pool: np.ndarray,
    begins: np.ndarray,
    counts: np.ndarray,
    targets: np.ndarray | None = None,
) -> TokenBatch:
    """Return the batch with tokens replaced by other sequences; targets stay the true text.

    The last token of what stands for another has its target; those before have none, for the text
    knows nothing of them.

    Args:
        batch: the rows.
        pool: all sequences, one after another.
        begins: where in the pool each place's sequence begins, [B·T].
        counts: how long it is; 0 takes the place out.
        targets: the target of each sequence's last token; None: the place's own.
    """
    targets = batch.targets.numpy().ravel() if targets is None else targets
    tokens = pool[ranges(begins, counts)]
    spread = np.full(len(tokens), IGNORE)
    ends = counts.cumsum() - 1
    if counts.min() == 0:
        there = counts.nonzero()[0]
        ends, targets = ends[there], targets[there]
    spread[ends] = targets
    return laid_out(batch, tokens, spread, counts)
