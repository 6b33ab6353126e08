"""A run's data is prepared once, found again, and prepared anew when anything changes."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from coterie.data import DataSettings, cache, prepare, store_for, verify_store
from coterie.data.sources import Sources
from coterie.foundation.errors import DataError, StoreError
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.published import Tiktoken
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.settings import TokenizerFile


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("It was the best of times,\nit was the worst of times.\n" * 20)
    return path


def stores(root):
    return sorted((root / "stores").iterdir())


def test_prepared_once_for_equal_settings(book, tmp_path, capfd):
    data = DataSettings(source=str(book))
    told = []
    first = store_for(data, Characters(), tmp_path / "c", lambda *news: told.append(news))
    assert told
    told.clear()
    again = store_for(data, Characters(), tmp_path / "c", lambda *news: told.append(news))
    assert again.path == first.path
    assert not told
    assert stores(tmp_path / "c") == [first.path]
    assert capfd.readouterr() == ("", "")


def test_anything_that_changes_the_tokens_changes_the_place(book, tmp_path):
    data = DataSettings(source=str(book))
    changes = [
        (data, Characters()),
        (data, Bytes()),
        (data, Characters(special_tokens=("<X>",))),
        (data.model_copy(update={"valid_fraction": 0.2}), Characters()),
        (data.model_copy(update={"split": "tail"}), Characters()),
        (data.model_copy(update={"split_seed": 1}), Characters()),
        (data.model_copy(update={"source": (str(book), str(book))}), Characters()),
    ]
    for number, (settings, tokenizer) in enumerate(changes, start=1):
        store_for(settings, tokenizer, tmp_path / "c")
        assert len(stores(tmp_path / "c")) == number
    book.write_text("Other words.\n" * 9)
    store_for(data, Characters(), tmp_path / "c")
    assert len(stores(tmp_path / "c")) == len(changes) + 1


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-2] + b"x\0"])
def test_a_damaged_store_in_the_cache_is_prepared_again(book, tmp_path, damage):
    data = DataSettings(source=str(book))
    path = store_for(data, Bytes(), tmp_path / "c").path
    shard = path / "train-00000.bin"
    shard.write_bytes(damage(shard.read_bytes()))
    assert verify_store(path)
    assert store_for(data, Bytes(), tmp_path / "c").path == path
    assert verify_store(path) == []


def test_a_prepared_store_is_used_as_it_is(book, tmp_path):
    made = prepare(Sources([book]), tmp_path / "s", Bytes().build())
    for data in (DataSettings(store=tmp_path / "s"), DataSettings(source=str(tmp_path / "s"))):
        store = store_for(data, Bytes(), tmp_path / "c")
        assert store.fingerprint == made.fingerprint
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("made_with", "fits", "others"),
    [
        (Bytes(), [Bytes()], [Characters(), BPE(), Tiktoken(), Bytes(special_tokens=("<X>",))]),
        (
            Characters(),
            [Characters()],
            [Bytes(), BPE(), Characters(special_tokens=("<X>",))],
        ),
        (
            BPE(vocab_size=270),
            [BPE(vocab_size=270), BPE(vocab_size=4096)],
            [Bytes(), BPE(vocab_size=265), BPE(vocab_size=270, special_tokens=("<X>",))],
        ),
    ],
)
def test_a_store_of_another_tokenizer_is_refused(book, tmp_path, made_with, fits, others):
    prepare(Sources([book]), tmp_path / "s", made_with.build([book.read_text()]))
    data = DataSettings(store=tmp_path / "s")
    for settings in [*fits, TokenizerFile(path=tmp_path / "s")]:
        store_for(data, settings, tmp_path / "c")
    for settings in others:
        with pytest.raises(StoreError, match="another tokenizer") as caught:
            store_for(data, settings, tmp_path / "c")
        assert "the store's own is used" in caught.value.hint


def test_a_store_among_several_sources_is_refused(book, tmp_path):
    prepare(Sources([book]), tmp_path / "s", Bytes().build())
    with pytest.raises(DataError, match="token store already"):
        store_for(DataSettings(source=(str(book), str(tmp_path / "s"))), Bytes(), tmp_path / "c")


def test_a_failure_leaves_the_cache_empty(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="UTF-8"):
        store_for(DataSettings(source=str(tmp_path / "bad.txt")), Bytes(), tmp_path / "c")
    assert not (tmp_path / "c").exists() or stores(tmp_path / "c") == []


def test_a_cached_store_of_another_tokenizer_is_prepared_again(book, tmp_path):
    data = DataSettings(source=str(book))
    path = store_for(data, Bytes(), tmp_path / "c").path
    prepare(Sources([book]), path, Characters().build([book.read_text()]), replace=True)
    assert store_for(data, Bytes(), tmp_path / "c").tokenizer == Bytes().build()


def test_who_wants_what_another_prepares_waits_and_finds_it(book, tmp_path, monkeypatch):
    """The second neither prepares it again nor fails, also where a damaged entry is replaced."""
    data = DataSettings(source=str(book))
    path = store_for(data, Bytes(), tmp_path / "c").path
    expected = {file.name: file.read_bytes() for file in path.iterdir()}
    (path / "manifest.json").unlink()  # a folder that is no store
    begun, waited, prepared = threading.Event(), threading.Event(), []
    write = cache.write_store

    def slow(*arguments, **options):
        prepared.append(1)
        begun.set()
        assert waited.wait(30)
        return write(*arguments, **options)

    monkeypatch.setattr(cache, "write_store", slow)
    told = []

    def notify(message):
        told.append(message)
        waited.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store_for, data, Bytes(), tmp_path / "c")
        assert begun.wait(30)
        second = pool.submit(store_for, data, Bytes(), tmp_path / "c", None, notify)
        assert first.result().fingerprint == second.result().fingerprint
    assert len(prepared) == 1
    assert f"process {os.getpid()}" in told[0]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == expected
    assert stores(tmp_path / "c") == [path]


def test_readers_of_a_store_that_is_replaced_keep_it(book, tmp_path):
    data = DataSettings(source=str(book))
    store = store_for(data, Bytes(), tmp_path / "c")
    tokens = store.tokens("train")
    before = tokens[: len(tokens)].copy()
    (store.path / "tokenizer.json").write_text("{}")
    assert store_for(data, Bytes(), tmp_path / "c").path == store.path
    assert (tokens[: len(tokens)] == before).all()
