"""Which text is held out for validation: whole documents, or the tail of everything.

`documents` orders documents by a hash of their content and holds out the first of them until the
requested fraction of characters is met as nearly as possible. Equal documents go the same way.
`tail` holds out the last fraction of all characters: of n characters the first int(n·(1−fraction))
train. Both need one reading of the sources before the tokens are made; neither holds the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from coterie.data.documents import Document
from coterie.foundation.errors import DataError

SplitKind = Literal["documents", "tail"]
Split = Literal["train", "valid"]
SPLITS: tuple[Split, ...] = ("train", "valid")
OnProgress = Callable[[str, int, int | None], None]
"""Called with the stage, what is done, and how much there is where that is known."""

SURVEYED = np.dtype([("key", "<u8"), ("characters", "<u8"), ("bytes", "<u8")])
"""What a survey writes down of each document: the hash of its text, and how long it is."""

_BUCKET_BITS = 20  # hashes are distinguished to a millionth of their range
_SHIFT = np.uint64(64 - _BUCKET_BITS)


@dataclass(frozen=True, slots=True)
class Piece:
    """A document, or a piece of one, that goes into one split.

    With a `problem` it stands for a document that cannot be used.
    """

    split: Split
    document: Document
    problem: str = ""

    @property
    def text(self) -> str:
        return self.document.text

    @property
    def starts(self) -> bool:
        """Whether a document begins here."""
        return not self.document.continued


@dataclass(frozen=True)
class Survey:
    """What one reading of the sources found.

    Attributes:
        documents, characters: how many there are.
        seed: what the hashes were made with.
        buckets: characters by the leading bits of the documents' hashes, int64 [2^20].
        keys: the file with what is known of every document, in order; see `SURVEYED`.
        origins: the inputs that documents came from, in order of appearance.
    """

    documents: int
    characters: int
    seed: int
    buckets: np.ndarray
    keys: Path
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitRule:
    """How the split is made.

    Attributes:
        kind: what is done, which may differ from what was asked for.
        cut: for `tail`, how many characters train.
        threshold: for `documents`, hashes below it are held out.
        note: why the rule differs from what was asked for; else empty.
    """

    kind: SplitKind
    cut: int = 0
    threshold: int = 0
    note: str = ""


def survey(
    documents: Iterable[Document], seed: int, keys: Path, progress: OnProgress | None = None
) -> Survey:
    """Read all documents once; write what `SURVEYED` says of them to the file `keys`.

    Raises:
        DataError: the documents cannot be read, or hold no text.
    """
    origins: dict[str, None] = {}
    with open(keys, "wb") as file:
        for key, length, size, origin in _hashed(documents, seed, progress):
            if length:
                origins[origin] = None
            file.write(key + length.to_bytes(8, "little") + size.to_bytes(8, "little"))
    return surveyed(keys, seed, tuple(origins))


def surveyed(keys: Path, seed: int, origins: tuple[str, ...]) -> Survey:
    """Return the survey whose file is written.

    Raises:
        DataError: there is no text.
    """
    buckets = np.zeros(1 << _BUCKET_BITS, dtype=np.int64)
    count = characters = 0
    with open(keys, "rb") as file:
        while content := file.read(SURVEYED.itemsize << 16):
            found = np.frombuffer(content, dtype=SURVEYED)
            lengths = found["characters"].astype(np.int64)
            np.add.at(buckets, (found["key"] >> _SHIFT).astype(np.int64), lengths)
            count += int(np.count_nonzero(lengths))
            characters += int(lengths.sum())
    if not characters:
        raise DataError("The input holds no text.")
    return Survey(count, characters, seed, buckets, keys, origins)


def _hashed(
    documents: Iterable[Document], seed: int, progress: OnProgress | None
) -> Iterator[tuple[bytes, int, int, str]]:
    """Yield hash (8 bytes), characters, bytes and origin of each document, its pieces together."""
    digest, length, size, done, origin = None, 0, 0, 0, ""
    fresh = _digest(seed)
    for document in documents:
        if not document.continued:
            if digest is not None:
                yield digest.digest(), length, size, origin
            digest, length, size, origin = fresh.copy(), 0, 0, document.origin
        assert digest is not None, "a document begins with a piece that is not continued"
        content = document.text.encode("utf-8", "surrogatepass")
        digest.update(content)
        length += len(document.text)
        size += len(content)
        done += len(document.text)
        if progress is not None:
            progress("reading", done, None)
    if digest is not None:
        yield digest.digest(), length, size, origin


def _digest(seed: int) -> hashlib.blake2b:
    """Return what hashes one document; Python's own hash changes from process to process."""
    salt = hashlib.sha256(str(seed).encode()).digest()[: hashlib.blake2b.SALT_SIZE]
    return hashlib.blake2b(digest_size=8, salt=salt)


def document_key(text: str, seed: int) -> int:
    """Return the hash that decides on which side of a split by documents a text stands."""
    digest = _digest(seed)
    digest.update(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "little")


def split_rule(found: Survey, kind: SplitKind | SplitRule, valid_fraction: float) -> SplitRule:
    """Decide what is held out; a rule stays as it is.

    Raises:
        DataError: the fraction leaves nothing to train on.
    """
    if not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction must be at least 0 and below 1, not {valid_fraction}.")
    if isinstance(kind, SplitRule):
        return kind
    if valid_fraction == 0 or kind == "tail":
        return _tail(found, valid_fraction, "")
    filled = np.flatnonzero(found.buckets)
    if len(filled) < 2:
        one = "there is only one document" if found.documents == 1 else "all documents are equal"
        return _tail(found, valid_fraction, f"{one}, so the tail of the text is held out instead")
    # After how many buckets are the characters held out nearest to what was asked for? At least
    # one is held out and at least one trains.
    held = np.cumsum(found.buckets[filled])[:-1]
    last = int(np.argmin(np.abs(held - valid_fraction * found.characters)))
    threshold = (int(filled[last]) + 1) << int(_SHIFT)
    return SplitRule("documents", threshold=threshold)


def tail_cut(characters: int, valid_fraction: float) -> int:
    """Return how many of all characters train where the tail is held out."""
    return int(characters * (1 - valid_fraction))


def _tail(found: Survey, valid_fraction: float, note: str) -> SplitRule:
    cut = tail_cut(found.characters, valid_fraction)
    if cut == 0:
        raise DataError(
            f"The input holds {found.characters} characters; with valid_fraction "
            f"{valid_fraction} nothing is left to train on.",
            hint="Give more text.",
        )
    return SplitRule("tail", cut=cut, note=note)


def split_pieces(documents: Iterable[Document], found: Survey, rule: SplitRule) -> Iterator[Piece]:
    """Yield the text of documents with the split that each stretch goes into, in order.

    Raises:
        DataError: the documents are not those of the survey any more.
    """
    keys = np.memmap(found.keys, dtype=SURVEYED, mode="r")["key"]
    same = _unchanged(documents, keys, found.seed)
    if rule.kind == "tail":
        yield from _tail_pieces(same, rule.cut)
    else:
        yield from _document_pieces(same, keys, rule.threshold)


def _unchanged(documents: Iterable[Document], keys: np.ndarray, seed: int) -> Iterator[Document]:
    """Yield documents while they are those whose hashes were written down."""
    digest, number, name = None, -1, ""
    fresh = _digest(seed)

    def check() -> None:
        if digest is not None:
            key = int.from_bytes(digest.digest(), "little")
            if number >= len(keys) or key != int(keys[number]):
                raise _changed(name)

    for document in documents:
        if not document.continued:
            check()
            digest, number, name = fresh.copy(), number + 1, document.name
        assert digest is not None, "a document begins with a piece that is not continued"
        digest.update(document.text.encode("utf-8", "surrogatepass"))
        yield document
    check()
    if number + 1 != len(keys):
        raise _changed("the input")


def _tail_pieces(documents: Iterable[Document], cut: int) -> Iterator[Piece]:
    position = 0
    for document in documents:
        room = max(cut - position, 0)
        length = len(document.text)
        if room and length:
            yield Piece("train", document.cut(0, room))
        if room < length:
            # The held-out part begins a document of its own where it cuts one in two.
            continued = document.continued and position > cut
            yield Piece("valid", replace(document.cut(room), continued=continued))
        position += length


def _document_pieces(
    documents: Iterable[Document], keys: np.ndarray, threshold: int
) -> Iterator[Piece]:
    number = -1
    split: Split = "train"
    for document in documents:
        if not document.continued:
            number += 1
            held_out = number < len(keys) and int(keys[number]) < threshold
            split = "valid" if held_out else "train"
        if document.text:
            yield Piece(split, document)


def _changed(name: str) -> DataError:
    return DataError(f"{name} changed while it was read.", hint="Run the same command again.")
