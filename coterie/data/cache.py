"""Stores that runs share: prepared once for equal text, tokenizer and split, then found again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from coterie.data.documents import Document
from coterie.data.merged import AnyStore, MergedStore, named, open_store
from coterie.data.prepare import write_store
from coterie.data.settings import DataSettings, SourceSettings
from coterie.data.sources import Sources, texts_of
from coterie.data.split import OnProgress
from coterie.data.store import Store, is_store, open_plain_store
from coterie.data.streaming import Head, StreamedTexts, held_out_by_hash
from coterie.foundation.errors import StoreError
from coterie.foundation.locks import own
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import LEARNING, TokenizerSettings

S = TypeVar("S", Store, MergedStore, AnyStore)
Texts = Sources | Head
_VERSION = 2  # raised whenever equal settings come to mean other tokens


def store_for(
    data: DataSettings,
    tokenizer: TokenizerSettings,
    cache_root: Path,
    progress: OnProgress | None = None,
    notify: Callable[[str], None] = lambda message: None,
) -> AnyStore:
    """Return the store of a run's data, preparing it into the cache if it is not there yet.

    The cache's key is the SHA-256 of the sources' contents, the tokenizer's settings and the
    split's, so that a changed file is prepared anew. Each of several `data.sources` has a store of
    its own; a tokenizer that learns does so from all of them. Nothing is printed.

    Args:
        data: what to read; `data.store`, or a source that is a store, is opened as it is.
        tokenizer: what to tokenize with; a store that is opened must have been made with it.
        cache_root: where the cache is; stores lie in its folder `stores`.
        progress: called as preparation proceeds.
        notify: called with a sentence before waiting for another process that prepares it.

    Raises:
        UserError: the text cannot be read, or the store was made with another tokenizer.
    """
    texts = _Every(data)
    built = functools.cache(lambda: tokenizer.build(texts_of(texts)))

    def prepared(path: Path, sources: Texts, part: SourceSettings) -> Store:
        return _prepared(path, sources, part, tokenizer, built, progress, notify)

    return _store_of(data, tokenizer, cache_root, texts, prepared)


def cached_store(
    data: DataSettings, tokenizer: TokenizerSettings, cache_root: Path
) -> AnyStore | None:
    """Return what `store_for` would, if all of it has been prepared and is sound, else None.

    Raises:
        UserError: the text cannot be read, or a named store was made with another tokenizer.
    """

    def sound(path: Path, sources: Texts, part: SourceSettings) -> Store:
        try:
            return _sound(path, tokenizer)
        except StoreError as error:
            raise _NotPreparedError from error

    with contextlib.suppress(_NotPreparedError):
        return _store_of(data, tokenizer, cache_root, _Every(data), sound)
    return None


class _NotPreparedError(Exception):
    """A store is not in the cache."""


def _store_of(
    data: DataSettings,
    tokenizer: TokenizerSettings,
    cache_root: Path,
    texts: _Every,
    prepared: Callable[[Path, Texts, SourceSettings], Store],
) -> AnyStore:
    """Return the store of a run's data; `prepared` returns what has a place in the cache."""
    ready = ready_store(data, tokenizer)
    if ready is not None:
        return ready
    learns = isinstance(tokenizer, LEARNING)
    parts: dict[str, Store] = {}
    for name, part in (data.sources or {"": data}).items():
        if store := _named_store(part, tokenizer):
            parts[name] = store
            continue
        sources = texts.sources[name]
        of_all = [each.fingerprint() for each in texts.sources.values()]
        key = _key(sources, part, tokenizer, of_all if learns and data.sources else None)
        parts[name] = prepared(cache_root / "stores" / key[:32], sources, part)
    return MergedStore(parts) if data.sources else parts[""]


def streamed_texts(data: DataSettings) -> StreamedTexts:
    """Return what a run reads whose data are a stream.

    Raises:
        DataError: an input does not exist or cannot be read.
    """
    return StreamedTexts(data.documents(), held_out_by_hash(data.valid_fraction), data.split_seed)


def _prepared(
    path: Path,
    sources: Texts,
    part: SourceSettings,
    tokenizer: TokenizerSettings,
    built: Callable[[], Tokenizer],
    progress: OnProgress | None,
    notify: Callable[[str], None],
) -> Store:
    """Return a store of the cache, prepared if it is not there or not sound."""
    with contextlib.suppress(StoreError):
        return _sound(path, tokenizer)
    with own(path, "preparing data", wait=True, notify=notify):
        with contextlib.suppress(StoreError):
            return _sound(path, tokenizer)  # its owner, who was waited for, has prepared it
        # A damaged or foreign one is replaced; whoever has mapped its files keeps them.
        return write_store(
            sources,
            path,
            built(),
            valid_fraction=part.valid_fraction,
            split=sources.texts.rule if isinstance(sources, Head) else part.split,
            seed=part.split_seed,
            progress=progress,
            by=(None, part.processes),
            replace=True,
        )


def ready_store(data: DataSettings, tokenizer: TokenizerSettings) -> AnyStore | None:
    """Return the store that a run's data name, opened; `None` where they name text.

    Raises:
        StoreError: it is damaged, or was made with another tokenizer.
    """
    if len(data.stores) > 1:
        parts = named(data.stores)
        return MergedStore({name: _opened(path, tokenizer) for name, path in parts.items()})
    if data.sources:
        found = {name: _named_store(each, tokenizer) for name, each in data.sources.items()}
        stores = {name: store for name, store in found.items() if store is not None}
        return MergedStore(stores) if len(stores) == len(found) else None
    places = stores_in(data)
    return _checked(open_store(places[0]), tokenizer) if places else None


def stores_in(data: DataSettings) -> list[Path]:
    """Return the stores among what a run's data name."""
    if data.stores:
        return list(data.stores)
    each = data.sources.values() if data.sources else [data]
    return [Path(path) for path in map(_only_input, each) if path and is_store(path)]


def all_texts(data: DataSettings) -> Iterable[str]:
    """Return the texts of all sources, which can be read as often as they can.

    Raises:
        DataError: an input does not exist or cannot be read.
    """
    return texts_of(_Every(data))


class _Every:
    """The documents of all sources that are no stores."""

    def __init__(self, data: DataSettings) -> None:
        parts = data.sources or {"": data}
        self.sources: dict[str, Texts] = {
            name: part.documents() for name, part in parts.items() if not _is_store(part)
        }
        if data.stream is not None:
            self.sources = {"": Head(streamed_texts(data), data.stream.head)}

    def __iter__(self) -> Iterator[Document]:
        return itertools.chain.from_iterable(self.sources.values())


def _only_input(part: SourceSettings) -> str | None:
    return part.inputs[0] if len(part.inputs) == 1 else None


def _is_store(part: SourceSettings) -> bool:
    path = _only_input(part)
    return path is not None and is_store(path)


def _named_store(part: SourceSettings, tokenizer: TokenizerSettings) -> Store | None:
    """Return the store that one of several sources names; `None` where it names text."""
    return _opened(Path(part.inputs[0]), tokenizer) if _is_store(part) else None


def _key(
    sources: Texts,
    data: SourceSettings,
    tokenizer: TokenizerSettings,
    learnt_from: list[str] | None = None,
) -> str:
    content = {
        "version": _VERSION,
        "sources": sources.fingerprint(),
        "tokenizer": tokenizer.identity(),
        "split": [data.split, data.valid_fraction, data.split_seed],
    }
    if learnt_from is not None:
        content["learnt_from"] = learnt_from
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sound(path: Path, wanted: TokenizerSettings) -> Store:
    """Open a store of the cache; unlike one that the user named, it can be made anew.

    Raises:
        StoreError: it is damaged, to its last byte, or another tokenizer made it.
    """
    store = _opened(path, wanted)
    store.check_content()
    return store


def _opened(path: Path, wanted: TokenizerSettings) -> Store:
    """Open a store that the settings' tokenizer can have made.

    Raises:
        StoreError: it is damaged, or another one made it.
    """
    return _checked(open_plain_store(path), wanted)


def _checked(store: S, wanted: TokenizerSettings) -> S:
    problem = wanted.mismatch(store.tokenizer)
    if problem:
        raise StoreError(
            f"The store {store.path} was made with another tokenizer: {problem}.",
            hint="Leave the tokenizer out, and the store's own is used; or prepare the text again.",
        )
    return store
