"""Stores elsewhere: uploaded whole, read from a copy that is never other than its manifest says."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

import coterie
from coterie.cli.app import run
from coterie.data import DataSettings, mirror, open_store, verify_store
from coterie.data.mirror import mirrored, uploaded, url_of
from coterie.foundation.errors import StoreError, UserError

URL = "memory://bucket/books"
TEXT = "".join(f"{n} and {n} make {2 * n}, says the fool.\n\n" for n in range(60))


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path / "cache"))
    mirror._mirrored.cache_clear()
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()
    mirror._mirrored.cache_clear()


@pytest.fixture
def store(memory, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return coterie.prepare(tmp_path / "text.txt", URL, tokenizer="bytes", shard_tokens=500)


def again(url=URL):
    """Open as another process would."""
    mirror._mirrored.cache_clear()
    return open_store(url)


def test_a_path_that_lost_a_slash_is_a_url_still(tmp_path):
    assert url_of(Path("s3://bucket/a")) == url_of("s3://bucket/a") == "s3://bucket/a"
    for path in ("store", "/a/b", "c:/store", tmp_path):
        assert url_of(path) is None
        assert mirrored(path) == Path(path)


def test_a_store_is_written_to_and_read_from_a_url(memory, store, tmp_path):
    local = coterie.prepare(
        tmp_path / "text.txt", tmp_path / "local", tokenizer="bytes", shard_tokens=500
    )
    assert store.fingerprint == local.fingerprint
    for file in local.path.iterdir():
        assert memory.cat_file(f"/bucket/books/{file.name}") == file.read_bytes()
    assert not verify_store(URL)
    assert DataSettings(store=Path(URL)).stores == (store.path,)
    assert run(["data", "inspect", URL]) == run(["data", "verify", URL]) == 0
    with pytest.raises(UserError, match="exists already"):
        coterie.prepare(tmp_path / "text.txt", URL, tokenizer="bytes")


def test_only_what_differs_is_fetched(memory, store, monkeypatch):
    fetched = []
    get = type(memory).get_file
    monkeypatch.setattr(
        type(memory),
        "get_file",
        lambda self, place, *rest, **more: (
            fetched.append(place.rpartition("/")[2]) or get(self, place, *rest, **more)
        ),
    )
    again()
    assert set(fetched) == {"manifest.json", "tokenizer.json"}
    content = (store.path / "train-00001.bin").read_bytes()
    (store.path / "train-00001.bin").write_bytes(content[:-2] + b"\0\0")
    (store.path / "train-00002.bin").unlink()
    fetched.clear()
    assert not verify_store(again().path)
    assert {"train-00001.bin", "train-00002.bin"} < set(fetched)
    assert len(fetched) == 4


def test_a_replaced_store_is_fetched_anew(memory, store, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT.upper())
    new = coterie.prepare(tmp_path / "text.txt", URL, tokenizer="bytes", replace=True)
    assert new.fingerprint != store.fingerprint
    assert again().fingerprint == new.fingerprint
    assert not verify_store(URL)


def test_what_is_damaged_at_its_origin_is_refused_by_name(memory, store):
    (store.path / "train-00000.bin").unlink()
    place = "/bucket/books/train-00000.bin"
    memory.pipe_file(place, memory.cat_file(place)[:-1] + b"\xff")
    with pytest.raises(StoreError, match=r"train-00000\.bin is not what"):
        again()
    assert not (store.path / "manifest.json").exists()  # half a copy opens as nothing
    memory.rm_file(place)
    with pytest.raises(StoreError, match=r"train-00000\.bin is missing"):
        again()
    assert verify_store(URL)


def test_an_interrupted_upload_looks_like_no_store(memory, store, tmp_path, monkeypatch):
    put, puts = type(memory).put_file, []

    def breaking(self, here, there, **more):
        puts.append(there)
        if len(puts) == 3:
            raise OSError("the line is dead")
        return put(self, here, there, **more)

    monkeypatch.setattr(type(memory), "put_file", breaking)
    (tmp_path / "text.txt").write_text(TEXT.upper())
    with pytest.raises(UserError, match="the line is dead"):
        coterie.prepare(tmp_path / "text.txt", URL, tokenizer="bytes", replace=True)
    with pytest.raises(StoreError, match="no store at"):
        again()
    coterie.prepare(tmp_path / "text.txt", URL, tokenizer="bytes")
    assert not verify_store(URL)


def test_a_failed_preparation_uploads_nothing(memory):
    with pytest.raises(RuntimeError), uploaded(URL, replace=False):
        raise RuntimeError
    assert not memory.store
