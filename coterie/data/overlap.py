"""Which texts hold words that stand in others too: n-grams in common, and whole documents.

The smaller side is held as hashes of its n-grams (about 20 bytes each), the other streams past.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coterie.data.documents import Document, in_batches
from coterie.data.ngrams import Fingerprints, word_ngrams

NGRAM = 13  # words in a row that are no coincidence (Brown et al. 2020, appendix C)


class NGramIndex:
    """The n-grams of some texts, and which of them other texts hold.

    Attributes:
        seen: whether an n-gram was found elsewhere, bool [n-grams of all texts].
        begins: where each text's n-grams begin in `seen`, and where the last one's end.
    """

    def __init__(self, documents: Iterable[Document], n: int = NGRAM) -> None:
        self.n = n
        parts, counts = [np.empty(0, dtype=np.uint64)], [np.zeros(1, dtype=np.int64)]
        for batch in in_batches(documents):
            values, begins = word_ngrams([document.text for document in batch], n)
            parts.append(values)
            counts.append(np.diff(begins))
        self.begins = np.cumsum(np.concatenate(counts))
        self._keys, self._of = np.unique(np.concatenate(parts), return_inverse=True)
        self._found = np.zeros(len(self._keys), dtype=bool)
        bits = max(int(math.log2(len(self._keys) + 1)) + 4, 4)
        self._mask = np.uint64((1 << bits) - 1)
        self._likely = np.zeros(1 << bits, dtype=bool)
        self._likely[self._keys & self._mask] = True

    def mark(self, texts: Sequence[str]) -> np.ndarray:
        """Note which n-grams some texts hold; return whether a text has one, bool [texts]."""
        values, begins = word_ngrams(texts, self.n)
        likely = np.flatnonzero(self._likely[values & self._mask])
        found = np.zeros(len(texts), dtype=bool)
        if len(likely):
            places = np.searchsorted(self._keys, values[likely]).clip(max=len(self._keys) - 1)
            right = self._keys[places] == values[likely]
            self._found[places[right]] = True
            found[np.searchsorted(begins, likely[right], side="right") - 1] = True
        return found

    @property
    def seen(self) -> np.ndarray:
        return self._found[self._of]

    def shares(self) -> np.ndarray:
        """Return the share of each text's n-grams that others hold, float [texts]."""
        sums = np.concatenate(([0], np.cumsum(self.seen)))
        counts = np.diff(self.begins)
        return np.diff(sums[self.begins]) / np.maximum(counts, 1)


@dataclass(frozen=True)
class Leak:
    """How much of the validation text stands in the training text.

    Attributes:
        documents: of the validation text.
        equal: those that training has too, case and white space aside.
        near: those of whose n-grams training has four fifths, equal ones included.
        share: of all n-grams of the validation text that training has.
        n: words in an n-gram.
    """

    documents: int
    equal: int
    near: int
    share: float
    n: int


_NEAR = 0.8


def leak_of(train: Iterable[Document], valid: Iterable[Document], n: int = NGRAM) -> Leak:
    """Return how much of the validation text the training text repeats.

    Args:
        train: documents in pieces of any size.
        valid: the same; about 30 bytes are held for each of its words.
        n: words in an n-gram.
    """
    marks, trained = Fingerprints(), Fingerprints()
    owners: list[int] = []

    def pieces() -> Iterator[Document]:
        for document in valid:
            marks.add(document)
            owners.append(owners[-1] + (not document.continued) if owners else 0)
            yield document

    index = NGramIndex(pieces(), n)
    for batch in in_batches(train):
        for document in batch:
            trained.add(document)
        index.mark([document.text for document in batch])
    known = set(trained.all())
    equal = np.array([mark in known for mark in marks.all()], dtype=bool)
    sums = np.concatenate(([0], np.cumsum(index.seen)))[index.begins]
    held = np.bincount(owners, np.diff(sums), len(equal))
    totals = np.bincount(owners, np.diff(index.begins), len(equal))
    near = equal | ((held >= _NEAR * totals) & (totals > 0))
    share = float(held.sum() / max(totals.sum(), 1))
    return Leak(len(equal), int(equal.sum()), int(near.sum()), share, n)
