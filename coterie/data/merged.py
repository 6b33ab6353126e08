"""Several stores read as one, in a ratio: a merged store, or those that a run names.

```
MERGED/manifest.json       the stores with their fingerprints, and how they are mixed
MERGED/tokenizer.json      the tokenizer that made them all
MERGED/NAME/…              the stores themselves, if they were copied
```

No token is moved: rows are mixed as they are read, so the ratio is exact and a source may be read
several times. Stores are named by relative paths, so that a tree of folders can be moved.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.data.manifest import (
    FILE_NAME,
    MERGED_FORMAT,
    MergedManifest,
    PartRecord,
    damaged,
    digest,
    is_merged,
    read_record,
    write_signed,
)
from coterie.data.mirror import home_of, mirrored, uploaded, url_of
from coterie.data.mix import Mix, Proportional, Source
from coterie.data.store import (
    Store,
    file_problem,
    is_store,
    open_plain_store,
    tokenizer_problems,
)
from coterie.foundation.errors import DataError, StoreError, TokenizerError
from coterie.foundation.files import atomic_directory
from coterie.foundation.locks import own_unless_held
from coterie.foundation.places import is_taken
from coterie.foundation.swap import restore
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE
from coterie.tokenizer.saving import load_tokenizer


class MergedStore:
    """Several stores of one tokenizer, opened for reading.

    Attributes:
        path: the merged store's folder; None where a run named the stores.
        sources: the stores by name, in the order of their weights.
        mix: how they are mixed, where the merged store says so.
        tokenizer: that of all of them.
    """

    def __init__(
        self, sources: Mapping[str, Store], mix: Mix | None = None, path: Path | None = None
    ) -> None:
        """Read stores as one.

        Raises:
            StoreError: they were made with different tokenizers.
        """
        self.path = path
        self.sources = dict(sources)
        self.mix = mix
        first, *others = self.sources.values()
        self.tokenizer = first.tokenizer
        for other in others:
            if other.tokenizer.fingerprint != self.tokenizer.fingerprint:
                raise StoreError(
                    f"Stores of different tokenizers cannot be mixed: {self.tokenizer!r} made "
                    f"{first.path}, {other.tokenizer!r} made {other.path}.",
                    hint="Prepare one of them again: coterie data prepare TEXT --out STORE "
                    f"--tokenizer {first.path}",
                )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the tokens and, if it is given here, their order."""
        mix = None if self.mix is None else self.mix.model_dump(mode="json")
        return digest({"sources": [[n, s.fingerprint] for n, s in self.sources.items()]}
                      | {"mix": mix})  # fmt: skip

    def check_content(self) -> None:
        """Make sure that all tokens are those of the manifests; unless touched, they are read once.

        Raises:
            StoreError: a shard was changed.
        """
        for store in self.sources.values():
            store.check_content()

    def to_mix(self) -> list[Source]:
        """Return what the ratio is of: the tokens to train on."""
        counts = {name: store.manifest.splits["train"].tokens
                  for name, store in self.sources.items()}  # fmt: skip
        return [Source(name, count, count) for name, count in counts.items()]

    def __repr__(self) -> str:
        return f"<MergedStore {self.path or ''}: {', '.join(self.sources)}>"


AnyStore = Store | MergedStore


def open_store(path: Path | str, tokenizer: Tokenizer | None = None) -> AnyStore:
    """Open a store, merged or not, after every check that need not read its tokens.

    Args:
        path: the folder.
        tokenizer: what the store must have been made with, if that matters.

    Raises:
        StoreError: there is no store, it or one that it names is missing or damaged, or another
            tokenizer made it.
    """
    path = mirrored(path)
    restore(path)
    if not is_merged(path):
        return open_plain_store(path, tokenizer)
    manifest = read_record(path, MergedManifest, MERGED_FORMAT)
    for problem in merged_problems(path, manifest):
        raise damaged(path, problem)
    sources = {part.name: open_part(path, part, tokenizer) for part in manifest.parts}
    return MergedStore(sources, manifest.mix, path)


def open_part(merged: Path, part: PartRecord, tokenizer: Tokenizer | None = None) -> Store:
    """Open one of the stores of a merged one.

    Raises:
        StoreError: it is missing, damaged or not the one that was merged.
    """
    place = Path(os.path.normpath(merged / part.path))
    if not is_taken(place):
        raise StoreError(
            f"The merged store {merged} names a store {place}, which is not there.",
            hint="Put it back, or merge again: coterie data merge STORE... --out MERGED",
        )
    store = open_plain_store(place, tokenizer)
    if problem := part_problem(part, store):
        raise StoreError(
            f"The store {place} is not the one that was merged into {merged}: {problem}.",
            hint="Put that one back, or merge again: coterie data merge STORE... --out MERGED",
        )
    return store


def held_out(store: AnyStore) -> dict[str, Store]:
    """Return the stores, by name, that hold something to predict for validation."""
    return {name: each for name, each in store.sources.items()
            if each.manifest.splits["valid"].tokens > 1}  # fmt: skip


def part_problem(part: PartRecord, store: Store) -> str | None:
    """Return how a store differs from the one that was merged."""
    if store.fingerprint != part.fingerprint:
        return (f"its fingerprint is {store.fingerprint[:12]}… instead of "
                f"{part.fingerprint[:12]}…")  # fmt: skip
    for name, record in store.manifest.splits.items():
        if record.tokens != part.tokens.get(name):
            return f"{name} holds {record.tokens:,} tokens instead of {part.tokens.get(name):,}"
    return None


def merged_problems(path: Path, manifest: MergedManifest) -> list[str]:
    """Return what is wrong with a merged store itself; the stores in it are not looked at."""
    problems, parts = [], manifest.parts
    for what in ("name", "path"):
        counts = Counter(getattr(part, what) for part in parts)
        problems += [f"{what} “{each}” stands there {count} times"
                     for each, count in counts.items() if count > 1]  # fmt: skip
    for part in parts:
        if "\0" in part.path or os.path.isabs(part.path) or Path(part.path) == Path("."):
            problems.append(f"the path of “{part.name}” is not a relative one of a store")
    try:
        manifest.mix.build([Source(p.name, p.tokens["train"], p.tokens["train"]) for p in parts], 0)
    except DataError as error:
        problems.append(error.message.removesuffix("."))
    if missing := file_problem(path / TOKENIZER_FILE):
        return [*problems, missing]
    try:
        tokenizer = load_tokenizer(path)
    except TokenizerError as error:
        return [*problems, error.message]
    return [*problems, *tokenizer_problems(tokenizer, manifest.tokenizer)]


def named(stores: Sequence[Path | str]) -> dict[str, Path]:
    """Return stores by the names of their folders, made different where they are the same.

    Raises:
        StoreError: one is named twice.
    """
    found: dict[str, Path] = {}
    real = [Path(os.path.realpath(store)) for store in stores]
    for path, place in zip(stores, real, strict=True):
        if real.count(place) > 1:
            raise StoreError(f"{path} is named twice.", hint="Give it a higher weight instead.")
        number, name = 1, place.name
        while name in found:
            number += 1
            name = f"{place.name}-{number}"
        found[name] = Path(path)
    return found


def merge(
    stores: Sequence[Path | str],
    out: Path | str,
    mix: Mix | None = None,
    *,
    copy: bool = False,
    replace: bool = False,
) -> MergedStore:
    """Write a merged store.

    Args:
        stores: the folders of two stores or more, or their URLs.
        out: the folder to make, or its URL.
        mix: how they are mixed; None: by their sizes.
        copy: whether it gets copies of the stores, so that it stands alone.
        replace: whether a store that stands at `out` may be replaced.

    Raises:
        StoreError: a store is missing, damaged, named twice or a merged one; or tokenizers differ,
            or `out` cannot name a store that lies elsewhere.
        DataError: the weights do not fit the stores.
        UserError: `out` exists, or cannot be written.
    """
    out, mix = Path(out), mix or Proportional()
    with uploaded(out, replace) as place, own_unless_held(place, "merging stores"):
        replace = replace or place != out  # what an upload that was interrupted left
        if replace and is_taken(place) and not is_store(place):
            raise DataError(f"{out} is not a token store, so it is not replaced.")
        if len(stores) < 2:
            raise StoreError("Two stores at least are needed for a merged one.")
        places = named(stores)
        for each in places.values():
            if os.path.realpath(each) == os.path.realpath(out):
                raise StoreError(f"{out} cannot be merged into itself.",
                                 hint="Choose another --out.")  # fmt: skip
            if not copy and _system(each) != _system(out):
                raise StoreError(
                    f"{url_of(out) or out} cannot name {url_of(each) or each}, which lies "
                    "elsewhere.",
                    hint="--copy puts copies of the stores into it.",
                )
        opened = {name: open_plain_store(each) for name, each in places.items()}
        merged = MergedStore(opened, mix, out)
        mix.build(merged.to_mix(), 0)  # refuses weights that do not fit
        with atomic_directory(place, replace=replace) as folder:
            _write(folder, home_of(out), merged, copy)
    return merged if place == out and not copy else _reopened(out)


def _system(path: Path) -> str:
    """Return of what kind the file system is in which a store lies; "" for this machine's own."""
    return (url_of(path) or "").partition("://")[0]


def _reopened(out: Path) -> MergedStore:
    store = open_store(out)
    assert isinstance(store, MergedStore)
    return store


def _write(folder: Path, out: Path, merged: MergedStore, copy: bool) -> None:
    parts = []
    for name, store in merged.sources.items():
        here = os.path.relpath(os.path.realpath(store.path), os.path.realpath(out))
        if copy:
            here = name
            (folder / name).mkdir()
            for file in files_of(store):
                shutil.copyfile(store.path / file, folder / name / file)
        tokens = {split: record.tokens for split, record in store.manifest.splits.items()}
        parts.append({"name": name, "path": here, "fingerprint": store.fingerprint,
                      "tokens": tokens})  # fmt: skip
    first = next(iter(merged.sources.values()))
    shutil.copyfile(first.path / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    content: dict[str, Any] = {
        "tokenizer": first.manifest.tokenizer, "mix": merged.mix, "parts": parts,
    }  # fmt: skip
    write_signed(folder, MergedManifest.model_validate(content).model_dump(mode="json"))


def files_of(store: Store) -> Iterable[str]:
    """Yield the names of a store's files."""
    yield from (FILE_NAME, TOKENIZER_FILE)
    for record in store.manifest.splits.values():
        yield from (part.file for part in record.files)
