"""What can be said of a store, merged or not, once all of it was read: problems and figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coterie.data.documents import Document
from coterie.data.manifest import MERGED_FORMAT, MergedManifest, is_merged, read_record
from coterie.data.merged import (
    AnyStore,
    merged_problems,
    open_store,
    part_problem,
)
from coterie.data.mirror import mirrored
from coterie.data.mix.order import Order
from coterie.data.mix.protocol import Source
from coterie.data.mix.ratio import Ratio
from coterie.data.overlap import Leak, leak_of
from coterie.data.recount import documents_of
from coterie.data.split import OnProgress, Split
from coterie.data.store import file_problem, open_plain_store
from coterie.data.verify import own_tokenizer, strangers, verify_plain_store
from coterie.foundation.errors import CoterieError, DataError, UserError
from coterie.foundation.swap import restore
from coterie.tokenizer.saving import FILE_NAME as TOKENIZER_FILE

_WINDOW = 256  # tokens of a row, where the ratio is looked at
_ROWS = 100_000


@dataclass(frozen=True)
class Mixture:
    """How well the order of rows keeps the ratio.

    Attributes:
        asked, achieved: the share of each source in the rows looked at.
        rows: how many were looked at, from the first on.
        distance: rows that a source is away from its share at most, at any prefix.
    """

    asked: dict[str, float]
    achieved: dict[str, float]
    rows: int
    distance: float


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        problems: all of them; none means that the store is sound.
        parts: of a merged store, the problems of each store in it.
        mixture: of a merged store, its ratio.
        leak: how much of the validation text training holds too; None: not looked at.
    """

    problems: list[str]
    parts: dict[str, list[str]] = field(default_factory=dict)
    mixture: Mixture | None = None
    leak: Leak | None = None


def verify_store(
    path: Path | str, *, texts: bool = True, progress: OnProgress | None = None
) -> list[str]:
    """Return every problem of a store, merged or not; none means that it is sound.

    Args:
        path: the folder.
        texts: whether to decode the tokens and encode their text again.
        progress: called with the stage, characters done, and characters in all.
    """
    return _examined(path, texts, progress).problems


def examine_store(
    path: Path | str, *, texts: bool = True, progress: OnProgress | None = None
) -> Examination:
    """Return the problems of a store and figures of it; see `verify_store` for the arguments.

    With `texts`, it is also told how many validation documents stand in the training text.
    """
    found = _examined(path, texts, progress)
    if found.problems or not texts:
        return found
    return Examination([], found.parts, found.mixture, leak_in(open_store(path)))


def _examined(given: Path | str, texts: bool, progress: OnProgress | None) -> Examination:
    try:
        path = mirrored(given)
        restore(path)
    except UserError as error:
        return Examination([error.message])
    if not is_merged(path):
        return Examination(verify_plain_store(path, texts=texts, progress=progress))
    try:
        manifest = read_record(path, MergedManifest, MERGED_FORMAT)
    except UserError as error:
        return Examination([error.message])
    problems = merged_problems(path, manifest)
    if not file_problem(path / TOKENIZER_FILE):
        problems += own_tokenizer(path, manifest.tokenizer)[1]
    inside = {Path(part.path).parts[0] for part in manifest.parts if Path(part.path).parts}
    problems += strangers(path, inside - {os.pardir})
    parts: dict[str, list[str]] = {}
    for part in manifest.parts:
        try:
            place = Path(os.path.normpath(path / part.path))
            parts[part.name] = verify_plain_store(place, texts=texts, progress=progress)
            if not parts[part.name]:
                store = open_plain_store(place)
                wrong = [part_problem(part, store)]
                if store.tokenizer.fingerprint != manifest.tokenizer.fingerprint:
                    wrong.append("another tokenizer made it")
                parts[part.name] = [problem for problem in wrong if problem]
        except (CoterieError, ValueError, OSError) as error:
            parts[part.name] = [error.message if isinstance(error, CoterieError) else str(error)]
    problems += [f"{name}: {each}" for name, found in parts.items() for each in found]
    mixture = None if problems else mixture_of(manifest)
    if mixture is not None and mixture.distance >= 1:
        problems.append(f"the ratio is missed by {mixture.distance:.2f} rows")
    return Examination(list(dict.fromkeys(problems)), parts, mixture)


def mixture_of(manifest: MergedManifest) -> Mixture | None:
    """Return how well the order of a merged store's rows keeps its ratio."""
    if not isinstance(manifest.mix, Ratio):
        return None  # one from outside the package, which may do as it likes
    counts = {part.name: part.tokens["train"] for part in manifest.parts}
    sources = [Source(name, count, -(-count // _WINDOW)) for name, count in counts.items()]
    try:
        order = manifest.mix.order(sources)
    except DataError:
        return None  # told as a problem
    return kept_ratio(order, list(counts))


def kept_ratio(order: Order, names: list[str], most: int = _ROWS) -> Mixture:
    """Return how well an order keeps its ratio over its first rows."""
    rows = most if order.length is None else min(order.length, most)
    counts = np.cumsum(order.sources(0, rows)[None] == np.arange(len(names))[:, None], axis=1)
    asked = order.asked(np.arange(1, rows + 1))
    wanted, got = (dict(zip(names, (each[:, -1] / rows).tolist(), strict=True))
                   for each in (asked, counts))  # fmt: skip
    return Mixture(wanted, got, rows, float(np.abs(counts - asked).max()))


def leak_in(store: AnyStore) -> Leak | None:
    """Return how much of the validation text training holds too; None where it cannot be read."""
    parts = store.sources.values()
    if not store.tokenizer.keeps_text or not any(p.manifest.splits["valid"].tokens for p in parts):
        return None
    return leak_of(_documents(store, "train"), _documents(store, "valid"))


def _documents(store: AnyStore, split: Split) -> Iterator[Document]:
    for part in store.sources.values():
        yield from documents_of(part.path, split, part.manifest, part.tokenizer)
