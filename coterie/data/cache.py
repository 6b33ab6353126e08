"""Stores that runs share: prepared once for equal text, tokenizer and split, then found again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path

from coterie.data.prepare import write_store
from coterie.data.settings import DataSettings
from coterie.data.sources import Sources, texts_of
from coterie.data.split import OnProgress
from coterie.data.store import Store, is_store, open_store
from coterie.foundation.errors import StoreError
from coterie.foundation.locks import own
from coterie.tokenizer.settings import TokenizerSettings

_VERSION = 2  # raised whenever equal settings come to mean other tokens


def store_for(
    data: DataSettings,
    tokenizer: TokenizerSettings,
    cache_root: Path,
    progress: OnProgress | None = None,
    notify: Callable[[str], None] = lambda message: None,
) -> Store:
    """Return the store of a run's data, preparing it into the cache if it is not there yet.

    The cache's key is the SHA-256 of the sources' contents, the tokenizer's settings and the
    split's, so that a changed file is prepared anew. Nothing is printed.

    Args:
        data: what to read; `data.store`, or a source that is a store, is opened as it is.
        tokenizer: what to tokenize with; a store that is opened must have been made with it.
        cache_root: where the cache is; stores lie in its folder `stores`.
        progress: called as preparation proceeds.
        notify: called with a sentence before waiting for another process that prepares it.

    Raises:
        UserError: the text cannot be read, or the store was made with another tokenizer.
    """
    ready = ready_store(data, tokenizer)
    if ready is not None:
        return ready
    sources = data.sources()
    path = cache_root / "stores" / _key(sources, data, tokenizer)[:32]
    with contextlib.suppress(StoreError):
        return _sound(path, tokenizer)
    with own(path, "preparing data", wait=True, notify=notify):
        with contextlib.suppress(StoreError):
            return _sound(path, tokenizer)  # its owner, who was waited for, has prepared it
        # A damaged or foreign one is replaced; whoever has mapped its files keeps them.
        return write_store(
            sources,
            path,
            tokenizer.build(texts_of(sources)),
            valid_fraction=data.valid_fraction,
            split=data.split,
            seed=data.split_seed,
            progress=progress,
            by=(None, data.processes),
            replace=True,
        )


def ready_store(data: DataSettings, tokenizer: TokenizerSettings) -> Store | None:
    """Return the store that a run's data name, opened; `None` where they name text.

    Raises:
        StoreError: it is damaged, or was made with another tokenizer.
    """
    path = data.store
    if path is None and len(data.inputs) == 1 and is_store(data.inputs[0]):
        path = Path(data.inputs[0])
    return None if path is None else _opened(path, tokenizer)


def settings_of(store: Path) -> str:
    """Return the words of a command line that train on a store with its own tokenizer."""
    # A preset's special tokens would be added to the file's own, which makes another tokenizer.
    words = ("tokenizer.kind=file", f"tokenizer.path={store}", "tokenizer.special_tokens=[]")
    return shlex.join([f"data.store={store}", *words])


def _key(sources: Sources, data: DataSettings, tokenizer: TokenizerSettings) -> str:
    content = {
        "version": _VERSION,
        "sources": sources.fingerprint(),
        "tokenizer": tokenizer.identity(),
        "split": [data.split, data.valid_fraction, data.split_seed],
    }
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
    store = open_store(path)
    problem = wanted.mismatch(store.tokenizer)
    if problem:
        raise StoreError(
            f"The store {store.path} was made with another tokenizer: {problem}.",
            hint=f"Use the store's own: {settings_of(store.path)}; or prepare the text again.",
        )
    return store
