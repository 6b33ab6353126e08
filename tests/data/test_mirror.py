"""Stores elsewhere: uploaded whole, read from a copy that is never other than its manifest says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import pytest

import coterie
from coterie.cli.app import run
from coterie.data import DataSettings, mirror, open_store, verify_store
from coterie.data.manifest import write_signed
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


@pytest.fixture
def texts(memory, tmp_path):
    for name in ("verse", "prose"):
        (tmp_path / f"{name}.txt").write_text(f"{name} {TEXT}" if name == "verse" else TEXT * 2)
        words = [str(tmp_path / f"{name}.txt"), "--tokenizer", "bytes"]
        for out in (f"memory://bucket/{name}", str(tmp_path / name)):
            assert run(["data", "prepare", *words, "--out", out]) == 0
    return tmp_path


@pytest.mark.parametrize("copy", [[], ["--copy"]])
def test_a_merged_store_is_made_of_urls_and_read_from_one(texts, copy):
    urls = ["memory://bucket/verse", "memory://bucket/prose"]
    both = "memory://bucket/deep/both"
    weights = ["--weights", "0.7", "0.3", *copy]
    assert run(["data", "merge", *urls, "--out", both, *weights]) == 0
    here = [str(texts / "verse"), str(texts / "prose")]
    assert run(["data", "merge", *here, "--out", str(texts / "both"), *weights]) == 0
    for forget in (False, True):
        if forget:
            shutil.rmtree(texts / "cache")  # as on another machine
        found = again(both)
        assert found.fingerprint == open_store(texts / "both").fingerprint
        assert found.mix.weights == (0.7, 0.3)
    assert run(["data", "verify", both]) == run(["data", "inspect", both]) == 0
    (stores,) = DataSettings(store=Path(both)).stores
    assert open_store(stores).fingerprint == found.fingerprint
    assert run(["data", "merge", *urls, "--out", both]) == 2
    assert run(["data", "merge", *urls[::-1], "--out", both, "--replace", *copy]) == 0
    assert list(again(both).sources) == ["prose", "verse"]


def test_what_a_merged_store_names_must_be_there_and_itself(texts, memory, capsys):
    urls = ["memory://bucket/verse", "memory://bucket/prose"]
    both = "memory://bucket/both"
    for stores, out in (([urls[0], texts / "prose"], both), (urls, texts / "both")):
        assert run(["data", "merge", *map(str, stores), "--out", str(out)]) == 2
        assert "lies elsewhere. --copy puts" in " ".join(capsys.readouterr().err.split())
        assert not memory.exists("/bucket/both")
    assert run(["data", "merge", *urls, "--out", both]) == 0
    memory.rm_file("/bucket/prose/train-00000.bin")
    shutil.rmtree(texts / "cache")
    with pytest.raises(StoreError, match=r"train-00000\.bin is missing"):
        again(both)
    assert run(["data", "verify", both]) == 2
    manifest = json.loads(memory.cat_file("/bucket/both/manifest.json"))
    manifest["parts"][0]["path"] = "../../../verse"
    del manifest["sha256"]
    write_signed(texts, manifest)
    memory.pipe_file("/bucket/both/manifest.json", (texts / "manifest.json").read_bytes())
    with pytest.raises(StoreError, match=r"leads out of memory://"):
        again(both)
    assert run(["data", "prepare", str(texts / "verse.txt"), "--out", urls[0], "--replace"]) == 0
    assert run(["data", "merge", both, urls[0], "--out", "memory://bucket/x"]) == 2
    assert not memory.exists("/bucket/x")


def test_blends_and_parts_are_uploaded_and_joined_too(texts, memory):
    (texts / "other.txt").write_text("".join(f"{n % 10} {n // 10}\n" for n in range(3000)))
    main, other = str(texts / "verse.txt"), str(texts / "other.txt")
    for out in ("memory://bucket/mixed", texts / "mixed"):
        found = coterie.blend(main, other, out, tokenizer="bytes", ngram=3)
    assert again("memory://bucket/mixed").fingerprint == found.store.fingerprint
    inputs = [main, other, str(texts / "prose.txt")]
    parts = [f"memory://bucket/part-{number}" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        words = ["data", "prepare", *inputs, "--out", part, "--part", f"{number}/2"]
        assert run([*words, "--tokenizer", "bytes"]) == 0
        assert run([*words, "--tokenizer", "bytes"]) == 2  # stands there
    shutil.rmtree(texts / "cache")
    mirror._mirrored.cache_clear()
    assert run(["data", "join", *parts, "--out", "memory://bucket/joined"]) == 0
    whole = coterie.prepare(inputs, texts / "whole", tokenizer="bytes")
    assert again("memory://bucket/joined").fingerprint == whole.fingerprint
    memory.pipe_file("/bucket/part-1/documents.bin", b"rubbish")
    mirror._mirrored.cache_clear()
    with pytest.raises(UserError, match=r"documents\.bin does not have its checksum"):
        coterie.join(parts, texts / "no")
