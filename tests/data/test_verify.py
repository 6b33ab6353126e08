"""No damage to a store goes unnoticed."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from coterie.data import Document, open_store, prepare, verify_store
from coterie.data.manifest import Manifest, read_manifest, write_manifest
from coterie.foundation.errors import StoreError
from coterie.foundation.files import sha256_file
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.saving import save_tokenizer

DOCUMENTS = [Document(f"{i}", f"document {i}, not very long\n" * 3) for i in range(30)]


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    prepare(DOCUMENTS, path, Bytes().build(), shard_tokens=600)
    assert verify_store(path) == []
    return path


def rewrite(store, **changes):
    """Write the manifest anew, its own checksum included, with some fields changed."""
    content = read_manifest(store).model_dump(mode="json")
    for place, value in changes.items():
        target = content
        *path, last = place.split("__")
        for key in path:
            target = target[int(key) if key.isdigit() else key]
        target[int(last) if last.isdigit() else last] = value
    write_manifest(store, Manifest.model_validate(content))


def resign(store, file):
    """Give a changed file the checksum of its new content."""
    content = read_manifest(store).model_dump(mode="json")
    for record in content["splits"].values():
        for part in [*record["shards"], record["offsets"]]:
            if part["file"] == file:
                part["sha256"] = sha256_file(store / file)
    write_manifest(store, Manifest.model_validate(content))


def test_any_flipped_byte_is_found(store):
    places = random.Random(1)
    for file in sorted(store.iterdir()):
        content = file.read_bytes()
        for place in {0, len(content) - 1, *places.sample(range(len(content)), 12)}:
            changed = bytearray(content)
            changed[place] ^= 1 << places.randrange(8)
            file.write_bytes(changed)
            if file.suffix == ".json" and _same_json(content, changed):
                continue  # a blank for another in the layout of the file: nothing changed
            assert verify_store(store), f"{file.name} byte {place}"
        file.write_bytes(content)
    assert verify_store(store) == []


def _same_json(first, second):
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False


def test_truncated_missing_and_added_files_are_named(store):
    shard = store / "train-00001.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert any("train-00001.bin has" in problem for problem in verify_store(store))
    with pytest.raises(StoreError, match="train-00001"):
        open_store(store)
    shard.unlink()
    assert any("train-00001.bin is missing" in problem for problem in verify_store(store))
    shard.write_bytes(b"")
    assert verify_store(store)
    shard.write_bytes(whole)
    (store / "train-00009.bin").write_bytes(b"ab")
    assert verify_store(store) == ["train-00009.bin does not belong to the store"]


def test_every_problem_is_listed(store):
    (store / "train-00000.bin").unlink()
    (store / "valid-00000.bin").write_bytes(b"xy")
    problems = "\n".join(verify_store(store))
    for name in ("train-00000.bin is missing", "valid-00000.bin has", "valid-00000.bin does not"):
        assert name in problems


def change_numbers(store, file, dtype, change):
    numbers = np.fromfile(store / file, dtype=dtype)
    change(numbers)
    numbers.tofile(store / file)
    resign(store, file)


def set_at(place, value):
    def change(numbers):
        numbers[place] = value

    return change


def test_a_token_outside_the_vocabulary_is_found_even_if_signed(store):
    change_numbers(store, "train-00001.bin", "<u2", set_at(5, 9999))
    assert verify_store(store) == [
        "train-00001.bin holds token 9,999 at position 5, outside the vocabulary of 257"
    ]


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (0, 3, "not at 0"),
        (2, 1, "does not begin after"),
        (-1, 10**6, "after the end"),
        (1, 50, "no separator at position 49"),
    ],
)
def test_wrong_offsets_are_found_even_if_signed(store, place, value, why):
    change_numbers(store, "train-documents.bin", "<u8", set_at(place, value))
    assert len(verify_store(store)) == 1
    assert why in verify_store(store)[0]


def test_a_separator_in_a_later_shard_is_checked(store):
    last = int(open_store(store).document_starts("train")[-1])
    shard, place = divmod(last - 1, 600)
    change_numbers(store, f"train-{shard:05d}.bin", "<u2", set_at(place, 65))
    assert f"no separator at position {last - 1:,}" in verify_store(store)[0]


def test_wrong_counts_are_found_even_if_signed(store):
    rewrite(store, splits__train__tokens=5, splits__train__documents=2)
    problems = "\n".join(verify_store(store))
    assert "tokens instead of 5" in problems
    assert "document offsets instead of 2" in problems


def test_a_wrong_shard_size_is_found(store):
    rewrite(store, shard_tokens=601)
    assert "train-00000.bin holds 600 tokens instead of 601" in verify_store(store)[0]


def test_a_foreign_tokenizer_is_found(store):
    save_tokenizer(Bytes(special_tokens=("<X>",)).build(), store / "tokenizer.json")
    assert "not the tokenizer" in verify_store(store)[0]
    with pytest.raises(StoreError, match=r"tokenizer\.json is not the one"):
        open_store(store)
    (store / "tokenizer.json").write_text("{}")
    assert "not a description" in verify_store(store)[0]
    with pytest.raises(StoreError, match="not a description"):
        open_store(store)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "coterie.store/1"}'])
def test_a_broken_manifest_is_one_problem(store, content):
    (store / "manifest.json").write_text(content)
    assert len(verify_store(store)) == 1


def test_a_signed_manifest_with_wrong_fields_is_named(store):
    content = json.loads((store / "manifest.json").read_text())
    content.pop("sha256")
    content["dtype"] = "float64"
    from coterie.data.manifest import _digest

    (store / "manifest.json").write_text(json.dumps(content | {"sha256": _digest(content)}))
    assert "wrong at dtype" in verify_store(store)[0]


def test_nothing_there_is_a_problem(tmp_path):
    assert "no token store" in verify_store(tmp_path / "gone")[0]
