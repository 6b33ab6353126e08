"""Texts read from beginning to end, again and again, and trained on while they are read.

Nothing is prepared but the head: the first characters, of which a tokenizer learns and whose
documents held out are the validation part, a small store. What is held out is decided by the hash
of each document, so it is held out in every epoch, and so are its copies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field

from coterie.data.documents import Document
from coterie.data.sources import Sources
from coterie.data.split import SplitRule, document_key
from coterie.foundation.errors import DataError
from coterie.foundation.settings import Settings
from coterie.tokenizer.cuts import last_cut

Tell = Callable[[str], None]


class Streaming(Settings):
    """How a stream is read."""

    block: int = Field(
        default=1 << 20,
        ge=1,
        description="characters whose rows are shuffled together and held in memory, twice",
    )
    head: int = Field(
        default=1 << 23,
        ge=1,
        description="first characters that are prepared, for validation and for a tokenizer that "
        "learns",
    )


Streamed = Annotated[
    Streaming | None,
    BeforeValidator(lambda given: ({} if given else None) if isinstance(given, bool) else given),
]
"""Settings of a stream; `true` means the defaults, `false` none."""


class Place(NamedTuple):
    """A document of an epoch: its input, the row group of that, its number in there."""

    input: int = 0
    section: int = 0
    document: int = 0


@dataclass(frozen=True)
class StreamedTexts:
    """The documents of sources with their places; long ones come as several documents.

    Attributes:
        sources: what is read.
        rule: what is held out.
        seed: of the hashes.
    """

    sources: Sources
    rule: SplitRule
    seed: int

    def after(self, place: Place, tell: Tell) -> Iterator[tuple[Place, Document]]:
        """Yield the documents to train on from a place to the end, and where each stands.

        What a file holds before the place is read over: up to a row group of a Parquet file, all
        of other files.
        """
        said = False
        for number, section, documents in self.sources.sections(place.input, place.section):
            begin = place.document if (number, section) == place[:2] else 0
            if begin and not said:
                name, said = self.sources.names[number], True
                tell(f"Reading over the first {begin:,} documents of {name} that were read before.")
            for at, document in enumerate(_apart(documents)):
                if at >= begin and not self._held(document):
                    yield Place(number, section, at), document

    def __iter__(self) -> Iterator[Document]:
        """Yield all documents, those held out among them."""
        for _, _, documents in self.sources.sections():
            yield from _apart(documents)

    def _held(self, document: Document) -> bool:
        return document_key(document.text, self.seed) < self.rule.threshold


@dataclass(frozen=True)
class Head:
    """The first documents of a stream, of so many characters or a little more."""

    texts: StreamedTexts
    characters: int

    @property
    def sources(self) -> Sources:
        """Where they come from."""
        return self.texts.sources

    def fingerprint(self) -> str:
        """Return what decides them, as a text; see `identity_of`."""
        return f"head {self.characters} {identity_of(self.sources)}"

    def __iter__(self) -> Iterator[Document]:
        read = 0
        for document in self.texts:
            yield document
            read += len(document.text)
            if read >= self.characters:
                return


def held_out_by_hash(fraction: float) -> SplitRule:
    """Return the rule by which a share of all documents is held out, whatever they are."""
    return SplitRule("documents", threshold=int(fraction * 2**64))


def identity_of(sources: Sources) -> str:
    """Return the SHA-256 of what a stream is known by before it is read; see `Sources.known`."""
    known = [each[1:] for each in sources.known()]
    how = [sources.reading.identity, [each.model_dump(mode="json") for each in sources.clean]]
    return hashlib.sha256(json.dumps([known, how], sort_keys=True).encode()).hexdigest()


def refuse_other(before: Iterable[tuple[str, int, str]], sources: Sources) -> None:
    """Refuse sources that are not those a checkpoint was written with.

    Raises:
        DataError: a file was changed, or is missing, or there is another; the first is named.
    """
    then, now = list(before), sources.known()
    for (name, *old), (here, *new) in zip(then, now, strict=False):
        if old != new:
            sizes = f"{old[0]:,} bytes then, {new[0]:,} now" if old[0] != new[0] else "its content"
            other = f" (then {name})" if name != here else ""
            raise DataError(
                f"{here}{other} is not what the stream read before: {sizes}.", hint=_RESTORE
            )
    if len(then) != len(now):
        name = (then if len(then) > len(now) else now)[min(len(then), len(now))][0]
        how = "is missing" if len(then) > len(now) else "is new"
        raise DataError(f"{name} {how}: the stream had {len(then):,} files.", hint=_RESTORE)


_RESTORE = "Restore the text, or start a new run."


def _apart(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield documents of which none goes on with another: long ones are cut between words."""
    held: Document | None = None
    for document in documents:
        if held is not None and document.continued:
            place = last_cut(held.text, len(held.text)) or len(held.text)
            yield replace(held, text=held.text[:place])
            document = replace(document, text=held.text[place:] + document.text, continued=False)
        elif held is not None and held.text:
            yield held
        held = document
    if held is not None and held.text:
        yield held
