"""The sources of documents are kept, counted and held to what the manifest says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from coterie.data import Document, open_store, prepare, verify_store
from coterie.data.manifest import digest
from coterie.foundation.errors import StoreError
from coterie.foundation.files import sha256_file
from coterie.tokenizer.raw_bytes import Bytes

DOCUMENTS = [
    Document(f"{i}", f"document {i}, not very long\n" * 3, origin="ab"[i % 2]) for i in range(30)
]


def edit(store, place, value):
    """Change an entry of the manifest and sign it anew."""
    content = json.loads((store / "manifest.json").read_text())
    del content["sha256"]
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    at = content
    for key in path:
        at = at[key]
    at[last] = value
    (store / "manifest.json").write_text(json.dumps(content | {"sha256": digest(content)}))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "two"
    prepare(DOCUMENTS, path, Bytes().build(), shard_tokens=600)
    assert verify_store(path) == []
    return path


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("sources", ["a"], "counts 2 sources instead of 1"),
        ("sources", ["a", "b", "c"], "counts 2 sources instead of 3"),
        ("sources", "ab", "valid tuple"),
        ("splits.train.sources.0.documents", 3, "documents instead of"),
        ("splits.train.sources.1.tokens", 3, "tokens instead of"),
        ("splits.train.sources.1.tokens", -1, "greater than or equal to 0"),
        ("splits.train.source_ids", None, "the source of 0 documents, not of"),
        ("splits.train.source_ids.count", 3, "the source of 3 documents, not of"),
        ("splits.train.source_ids.file", "valid-sources.bin", "the sources of train are called"),
        ("splits.train.source_ids.sha256", "0" * 64, "does not have its checksum"),
    ],
)
def test_a_signed_manifest_is_held_to_its_sources(of_two, tmp_path, place, value, why):
    store = shutil.copytree(of_two, tmp_path / "store")
    edit(store, place, value)
    problems = verify_store(store)
    assert any(why in problem for problem in problems), problems
    with pytest.raises(StoreError):
        open_store(store).check_content()


@pytest.mark.parametrize("number", [0, 2, 65_535])
def test_sources_of_documents_are_found_wrong_even_if_signed(of_two, tmp_path, number):
    store = shutil.copytree(of_two, tmp_path / "store")
    file = store / "train-sources.bin"
    ids = np.fromfile(file, "<u2")
    ids[list(ids).index(1)] = number
    ids.tofile(file)
    edit(store, "splits.train.source_ids.sha256", sha256_file(file))
    why = "are not of the sources" if number == 0 else f"names source {number:,} of 2"
    assert any(why in problem for problem in verify_store(store))
