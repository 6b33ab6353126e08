"""Texts as numbers that can be compared: their words' n-grams, and one number for a whole text.

A word is a run of letters and digits in one case; ideographs and syllables of scripts without
blanks are words of their own. All of it is computed on arrays, without a Python object per word.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from coterie.data.documents import Document

_BLOCK = 1 << 16  # bytes hashed at once, which the caches hold
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_WIDE = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
_BETWEEN = re.compile(r"[\W_]+")


def word_ngrams(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash every `n` words in a row of each text; fewer words, but one at least, are one n-gram.

    Returns:
        The hashes of all texts, uint64 [N], and where each text's begin and the last one's end,
        int64 [texts + 1].
    """
    words, bounds = word_hashes(texts)
    counts = np.diff(bounds)
    padded = np.concatenate([words, np.zeros(n, dtype=np.uint64)])
    total = np.zeros(len(words), dtype=np.uint64)
    for at in range(n):  # a polynomial in the place, so that the order of words matters
        total *= _ODD
        total += padded[at : at + len(words)]
    few = np.flatnonzero((counts > 0) & (counts < n))
    if len(few):
        short = np.zeros(len(few), dtype=np.uint64)
        for at in range(n):
            short = short * _ODD + np.where(at < counts[few], padded[bounds[few] + at], 0)
        total[bounds[few]] = short
    kept = np.maximum(counts - n + 1, counts > 0)
    inside = np.repeat(bounds[:-1] + kept, counts) > np.arange(len(words))
    return _mixed(total[inside]), np.concatenate(([0], np.cumsum(kept)))


def word_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hash every word of each text, in order; the results are those of `word_ngrams`."""
    contents = [_plain(text).encode("utf-8", "surrogatepass") for text in texts]
    content = b" ".join([*contents, b""])
    letters, powers, inverses = _tables()
    parts, places, at = [], [], 0
    while at < len(content):
        end = min(at + _BLOCK, len(content))
        if end < len(content) and (blank := content.rfind(b" ", at, end)) > at:
            end = blank + 1
        values = letters[np.frombuffer(content, np.uint8, end - at, at)]
        inside = np.concatenate(([False], values != 0, [False]))
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        sums = np.zeros(len(values) + 1, dtype=np.uint64)
        np.cumsum(values * powers[: len(values)], out=sums[1:])
        begins, ends = edges[::2], edges[1::2]
        parts.append(_mixed((sums[ends] - sums[begins]) * inverses[begins]))
        places.append(begins + at)
        at = end
    starts = np.cumsum([0, *(len(each) + 1 for each in contents)])
    words = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
    begins = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    return words, np.searchsorted(begins, starts)


def _plain(text: str) -> str:
    """Return a text in lower case in which every word stands between blanks or ASCII signs."""
    if text.isascii():
        return text.lower().replace("\n", " ")
    text = _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return _WIDE.sub(r" \1 ", text)


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a number for each byte (0 between words), powers of an odd number, their inverses."""
    letters = np.random.default_rng(0).integers(1, 1 << 63, 256, dtype=np.uint64)
    between = [byte for byte in range(128) if not chr(byte).isalnum()]
    letters[between] = 0
    inverse = np.uint64(pow(int(_ODD), -1, 1 << 64))

    def powers(base: np.uint64) -> np.ndarray:
        row = np.full(_BLOCK, base, dtype=np.uint64)
        row[0] = 1
        return np.cumprod(row, dtype=np.uint64)

    return letters, powers(_ODD), powers(inverse)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return 64-bit numbers whose every bit depends on all of theirs (MurmurHash3's finaliser)."""
    shift = np.uint64(33)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> shift)) * np.uint64(factor)
    return values ^ (values >> shift)


class Fingerprints:
    """Sixteen bytes for each document, which those share that differ in case and white space alone.

    Documents may come in pieces.
    """

    def __init__(self) -> None:
        self._finished: list[bytes] = []
        self._digest: hashlib.blake2b | None = None
        self._begun = self._gap = False  # whether words have come, and white space after them

    def add(self, document: Document) -> None:
        """Take the next document or piece of one."""
        if self._digest is None or not document.continued:
            self._finished = self.all()
            self._digest = hashlib.blake2b(digest_size=16)
            self._begun = self._gap = False
        text = unicodedata.normalize("NFC", document.text).casefold()
        words = " ".join(text.split())
        if words:
            apart = self._begun and (self._gap or text[0].isspace())
            self._digest.update(f"{' ' * apart}{words}".encode("utf-8", "surrogatepass"))
            self._begun, self._gap = True, text[-1].isspace()
        elif text:
            self._gap = True

    def all(self) -> list[bytes]:
        """Return the fingerprints of the documents so far, in order."""
        if self._digest is not None:
            self._finished.append(self._digest.digest())
            self._digest = None
        return self._finished
