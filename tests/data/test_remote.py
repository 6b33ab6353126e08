"""Files of other file systems, fetched once; data sets of the hub, if the library is there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from coterie.data import Sources
from coterie.data.remote import fetched
from coterie.foundation.errors import DataError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    for name in ("b.txt", "a.txt", "deep/c.jsonl", ".hidden"):
        system.pipe(f"/bucket/{name}", b'{"text": "row"}\n' if "c" in name else name.encode())
    yield system
    system.rm("/bucket", recursive=True)


def texts(*names):
    return [document.text for document in Sources(names)]


def test_a_file_a_folder_and_a_pattern_are_read(bucket):
    assert texts("memory://bucket/a.txt") == ["a.txt"]
    assert texts("memory://bucket") == ["a.txt", "b.txt", "row"]
    assert texts("memory://bucket/**/*.jsonl") == ["row"]
    (document,) = Sources("memory://bucket/b.txt")
    assert document.origin == "memory://bucket/b.txt"
    assert document.name.endswith("remote/memory/bucket/b.txt")
    for gone in ("memory://bucket/gone", "memory://bucket/*.md", "nosuch://x/y"):
        with pytest.raises(DataError, match=gone.replace("*", r"\*")):
            texts(gone)


def test_a_copy_is_used_while_it_is_whole_and_up_to_date(bucket, monkeypatch):
    copy = fetched("memory://bucket/a.txt")
    monkeypatch.setattr(type(bucket), "get_file", None)
    assert fetched("memory://bucket/a.txt") == copy
    monkeypatch.undo()
    monkeypatch.setenv("COTERIE_CACHE", str(copy.parents[3]))
    copy.write_text("damaged")
    assert fetched("memory://bucket/a.txt").read_text() == "a.txt"
    bucket.pipe("/bucket/a.txt", b"newer and longer")
    assert fetched("memory://bucket/a.txt").read_text() == "newer and longer"


def test_data_sets_come_row_by_row(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="not installed") as caught:
        texts("hf:some/set")
    assert caught.value.hint == 'Run: pip install "coterie[datasets]"'
    asked = []

    def load_dataset(*words, **options):
        asked.append((words, options))
        return iter([{"id": "1", "text": "one"}, {"id": "2", "text": None}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"hf:some/set/en:test#2: .* holds null"):
        texts("hf:some/set/en:test")
    assert asked == [(("some/set", "en"), {"split": "test", "streaming": True})]
    assert [d.text for d in Sources("hf:some/set", on_error="skip")] == ["one"]


def test_a_data_set_is_known_by_its_version(monkeypatch):
    asked, versions = [], iter(["a1", "b2", "b2"])

    def load_dataset_builder(*words):
        asked.append(words)
        return SimpleNamespace(config_id="en", hash=next(versions))

    monkeypatch.setitem(
        sys.modules, "datasets", SimpleNamespace(load_dataset_builder=load_dataset_builder)
    )
    sources = [Sources("hf:some/set/en:test") for _ in range(3)]
    assert not asked  # naming it reaches nothing
    one, other, same = [each.fingerprint() for each in sources]
    assert one != other == same
    assert sources[0].fingerprint() == one  # asked once
    assert asked == [("some/set", "en")] * 3
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="not installed"):
        Sources("hf:some/set").fingerprint()
