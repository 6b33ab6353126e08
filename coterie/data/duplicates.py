"""Documents that a text holds more than once, exactly or nearly.

Equal are those that differ in case and white space alone. Near ones have most of their words'
n-grams in common: MinHash signatures estimate that, bands of them find the pairs to compare
(Leskovec et al., Mining of Massive Datasets, chapter 3), and what is connected by such pairs is one
group, of which one document stays. The groups depend on texts and seed, not on order or machine.
"""

import importlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coterie.data.documents import Document, in_batches, whole_documents
from coterie.data.ngrams import Fingerprints, word_ngrams
from coterie.data.report import ReadingReport
from coterie.data.split import OnProgress
from coterie.foundation.errors import DataError, MissingExtraError, UserError

_RECALL = 0.95  # of pairs just as similar as the threshold, before they are compared
_HUBS = 64  # of the documents that share a band, so many are compared with all others


@dataclass(frozen=True)
class Likeness:
    """What counts as nearly equal.

    Attributes:
        threshold: estimated share of n-grams in common (Jaccard); 1 finds equal documents alone.
        ngram: words in an n-gram.
        permutations: numbers in a signature; the estimate errs by 1/√permutations at most.
        seed: of the signatures.
    """

    threshold: float = 0.8
    ngram: int = 5
    permutations: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            UserError: a number is out of its range.
        """
        bounds = {"threshold": (0.1, 1), "ngram": (1, 100), "permutations": (16, 4096),
                  "seed": (0, (1 << 64) - 1)}  # fmt: skip
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                value = getattr(self, name)
                raise UserError(f"{name} must be from {least} to {most:,}, not {value}.")

    @property
    def rows(self) -> int:
        """How many numbers make a band: as many as still find pairs at the threshold."""
        sizes = range(self.permutations, 1, -1)
        return next((rows for rows in sizes if self.recall(self.threshold, rows) >= _RECALL), 1)

    def recall(self, jaccard: float, rows: int | None = None) -> float:
        """Return the probability that a pair so similar shares a band, 1 − (1 − Jʳ)ᵇ."""
        rows = rows or self.rows
        return 1 - (1 - jaccard**rows) ** (self.permutations // rows)


@dataclass
class Duplicates:
    """What was found.

    Attributes:
        names: of all documents, in order.
        kept: for each, the number of the document that stays for it, int64 [documents].
        equal: whether a document that goes is equal to one before it.
        similarity: estimated, to the document that stays; 1 for those that stay.
        lengths: characters of each.
        seconds: what finding them took.
        reading: what could not be read and was left out.
    """

    names: list[str]
    kept: np.ndarray
    equal: np.ndarray
    similarity: np.ndarray
    lengths: np.ndarray
    seconds: float = field(compare=False)
    reading: ReadingReport = field(default_factory=ReadingReport)

    @property
    def stays(self) -> np.ndarray:
        """Whether a document stays, bool [documents]."""
        return self.kept == np.arange(len(self.kept))

    def figures(self) -> dict[str, Any]:
        """Return how many documents and characters there are, which go, and how fast."""
        gone, read = ~self.stays, int(self.lengths.sum())
        return {
            "documents": len(self.names),
            "kept": int(self.stays.sum()),
            "equal": int((gone & self.equal).sum()),
            "near": int((gone & ~self.equal).sum()),
            "groups": len(np.unique(self.kept[gone])),
            "characters": read,
            "characters_kept": int(self.lengths[self.stays].sum()),
            "megacharacters_per_second": round(read / 1e6 / max(self.seconds, 1e-9), 2),
        }

    def groups(self) -> Iterator[dict[str, Any]]:
        """Yield each group of several: which stays, and which go with their similarity to it."""
        gone = np.flatnonzero(~self.stays)
        order = gone[np.argsort(self.kept[gone], kind="stable")]
        heads, begins = np.unique(self.kept[order], return_index=True)
        for head, begin, end in zip(heads, begins, np.append(begins, len(order))[1:], strict=True):
            removed = [
                {
                    "name": self.names[number],
                    "similarity": round(float(self.similarity[number]), 4),
                    "equal": bool(self.equal[number]),
                }
                for number in order[begin:end]
            ]
            yield {"kept": self.names[head], "removed": removed}


def find_duplicates(
    documents: Iterable[Document], likeness: Likeness, progress: OnProgress | None = None
) -> Duplicates:
    """Group the documents that are equal or nearly so; the longest of each group stays.

    Of equally long ones the one with the least hash stays, of equal ones that with the least name.
    About 0.7 kB is held for each document with 128 permutations, and one document's text.

    Raises:
        DataError: the documents cannot be read.
        MissingExtraError: near ones are wanted and `rensa` is not installed.
    """
    started = time.perf_counter()
    read = _Read(likeness)
    for batch in in_batches(whole_documents(documents)):
        read.add(batch)
        if progress:
            progress("comparing", read.characters, None)
    names, sizes = read.names, np.array(read.lengths, dtype=np.int64)
    hashes = np.array([int.from_bytes(mark[:8], "big") for mark in read.marks.all()], np.uint64)
    who = sorted(range(len(names)), key=lambda at: (-sizes[at], hashes[at], names[at]))
    rank = np.argsort(np.array(who, dtype=np.int64))  # who stays, in whatever order they came
    roots = _first_of(np.unique(hashes, return_inverse=True)[1], rank)
    numbers = np.arange(len(names))
    equal, similarity = roots != numbers, np.ones(len(names))
    if read.minhash:
        signatures = np.concatenate(read.signatures)
        distinct = np.flatnonzero(~equal & np.concatenate(read.worded))
        parent = _join(signatures, distinct, rank, likeness.rows, likeness.threshold)
        roots = _first_of(parent[roots], rank)
        similarity = _similarity(signatures, numbers, roots)
        similarity[hashes == hashes[roots]] = 1
    seconds = time.perf_counter() - started
    return Duplicates(names, roots, equal, similarity, sizes, seconds)


class _Read:
    """What is kept of the documents read so far."""

    def __init__(self, likeness: Likeness) -> None:
        self._likeness = likeness
        self.minhash = None if likeness.threshold == 1 else _minhash()
        self.names: list[str] = []
        self.lengths: list[int] = []
        self.characters = 0
        self.marks = Fingerprints()
        self.signatures = [np.empty((0, likeness.permutations), dtype=np.uint32)]
        self.worded = [np.empty(0, dtype=bool)]  # whether a document has words

    def add(self, batch: list[Document]) -> None:
        """Take the next documents, which are whole."""
        texts = [document.text for document in batch]
        for document in batch:
            self.marks.add(document)
        self.names += [document.name for document in batch]
        self.lengths += map(len, texts)
        self.characters += sum(map(len, texts))
        if self.minhash is None:
            return
        likeness = self._likeness
        values, begins = word_ngrams(texts, likeness.ngram)
        found = self.minhash.digest_matrix_from_flat_token_hashes(
            values, begins.astype(np.uint64), likeness.permutations, likeness.seed
        )
        self.signatures.append(np.array(found.to_rows(), dtype=np.uint32))
        self.worded.append(np.diff(begins) > 0)


def without(documents: Iterable[Document], found: Duplicates) -> Iterator[Document]:
    """Yield the documents that stay, whole and in order.

    Raises:
        DataError: they are not those that were compared.
    """
    stays, number = found.stays, -1
    for number, document in enumerate(whole_documents(documents)):
        same = number < len(stays) and (
            (found.names[number], found.lengths[number]) == (document.name, len(document.text))
        )
        if not same:
            raise _changed(document.name)
        if stays[number]:
            yield document
    if number + 1 != len(stays):
        raise _changed("the input")


def _changed(name: str) -> DataError:
    return DataError(f"{name} changed while it was read.", hint="Run the same command again.")


def _minhash() -> Any:
    try:
        return importlib.import_module("rensa").RMinHash
    except ImportError as error:
        raise MissingExtraError("rensa", "dedup") from error


def _first_of(group: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return for each member of groups the one of its group with the least rank, int64 [N]."""
    order = np.lexsort((rank, group))
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    first = np.empty(len(group), dtype=np.int64)
    first[order] = np.repeat(order[begins], np.diff(begins, append=len(group)))
    return first


def _join(
    signatures: np.ndarray, distinct: np.ndarray, rank: np.ndarray, rows: int, threshold: float
) -> np.ndarray:
    """Return a common number for all documents that pairs connect, int64 [documents]."""
    parent = np.arange(len(signatures))
    for band in range(signatures.shape[1] // rows):
        keys = np.ascontiguousarray(signatures[distinct, band * rows : (band + 1) * rows])
        _, bucket = np.unique(keys.view([("", keys.dtype)] * rows)[:, 0], return_inverse=True)
        order = np.lexsort((rank[distinct], bucket))
        begins = np.flatnonzero(np.diff(bucket[order], prepend=-1))
        sizes = np.diff(begins, append=len(order))
        start = np.repeat(begins, sizes)
        place = np.arange(len(order)) - start
        for hub in range(min(int(sizes.max(initial=1)) - 1, _HUBS)):
            others = np.flatnonzero(place > hub)
            ours, theirs = distinct[order[start[others] + hub]], distinct[order[others]]
            apart = parent[ours] != parent[theirs]
            ours, theirs = ours[apart], theirs[apart]
            alike = _similarity(signatures, ours, theirs) >= threshold
            for one, other in zip(ours[alike].tolist(), theirs[alike].tolist(), strict=True):
                parent[_root(parent, other)] = _root(parent, one)
            while (parent[parent] != parent).any():
                parent = parent[parent]
    return parent


def _root(parent: np.ndarray, at: int) -> int:
    while parent[at] != at:
        at = int(parent[at])
    return at


def _similarity(signatures: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the share of numbers that pairs of signatures have in common, float [pairs]."""
    shares = [np.empty(0)]
    for at in range(0, len(ours), 1 << 14):
        pair = slice(at, at + (1 << 14))
        shares.append((signatures[ours[pair]] == signatures[theirs[pair]]).mean(1))
    return np.concatenate(shares)
