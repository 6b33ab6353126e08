"""No damage to a store goes unnoticed."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from coterie.data import Document, open_store, prepare, verify_store
from coterie.data.manifest import Manifest, digest, read_manifest, write_manifest
from coterie.data.store import is_store
from coterie.foundation.errors import StoreError
from coterie.foundation.files import sha256_file
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.saving import save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer

DOCUMENTS = [Document(f"{i}", f"document {i}, not very long\n" * 3) for i in range(30)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "store"
    prepare(DOCUMENTS, path, Bytes().build(), shard_tokens=600)
    assert verify_store(path) == []
    return path


@pytest.fixture
def store(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "store")


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
        for part in [*record["shards"], *filter(None, [record["offsets"]])]:
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
    assert verify_store(store) == ["train-00009.bin (a file) does not belong to the store"]


def test_every_problem_is_listed(store):
    (store / "train-00000.bin").unlink()
    (store / "valid-00000.bin").write_bytes(b"xy")
    problems = "\n".join(verify_store(store))
    assert problems == "train-00000.bin is missing\nvalid-00000.bin has 2 bytes instead of 490"


def change_numbers(store, file, dtype, change):
    numbers = np.fromfile(store / file, dtype=dtype)
    change(numbers)
    numbers.tofile(store / file)
    resign(store, file)


def set_at(place, value):
    def change(numbers):
        numbers[place] = value

    return change


@pytest.mark.parametrize("token", [257, 65_535])
def test_a_token_outside_the_vocabulary_is_found_even_if_signed(store, token):
    change_numbers(store, "train-00001.bin", "<u2", set_at(5, token))
    assert verify_store(store) == [
        f"train holds token {token:,} at position 605, outside the vocabulary of 257"
    ]


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (0, 3, "not at 0"),
        (2, 1, "does not begin after"),
        (-1, 10**6, "after the end"),
        (-1, "tokens", "after the end"),
        (-1, 2**64 - 1, "after the end"),
        (1, 2**63, "does not begin after"),
        (1, 50, "no separator at position 49"),
    ],
)
def test_wrong_offsets_are_found_even_if_signed(store, place, value, why):
    if value == "tokens":
        value = read_manifest(store).splits["train"].tokens
    change_numbers(store, "train-documents.bin", "<u8", set_at(place, value))
    assert len(verify_store(store)) == 1
    assert why in verify_store(store)[0]
    if why in ("not at 0", "after the end"):
        with pytest.raises(StoreError, match="do not lie within its tokens"):
            open_store(store)


def test_an_empty_document_is_found_even_if_signed(store):
    starts = np.fromfile(store / "train-documents.bin", "<u8")
    separator = open_store(store).tokenizer.end_of_text
    place = int(starts[1])
    change_numbers(store, "train-00000.bin", "<u2", set_at(place, separator))
    change_numbers(store, "train-documents.bin", "<u8", set_at(2, place + 1))
    assert "document 2 does not begin after the one before it" in verify_store(store)[0]


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
    with pytest.raises(StoreError, match=r"tokenizer\.json is not the tokenizer"):
        open_store(store)
    (store / "tokenizer.json").write_text("{}")
    assert "not a description" in verify_store(store)[0]
    with pytest.raises(StoreError, match="not a description"):
        open_store(store)


def test_a_manifest_that_was_edited_but_not_signed_is_refused(store):
    text = (store / "manifest.json").read_text()
    (store / "manifest.json").write_text(text.replace('"note": ""', '"note": "mine"'))
    assert len(verify_store(store)) == 1
    assert "does not have its own checksum" in verify_store(store)[0]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "coterie.store/1"}'])
def test_a_broken_manifest_is_one_problem(store, content):
    (store / "manifest.json").write_text(content)
    assert len(verify_store(store)) == 1


def test_a_signed_manifest_with_wrong_fields_is_named(store):
    content = json.loads((store / "manifest.json").read_text())
    content.pop("sha256")
    content["dtype"] = "float64"
    (store / "manifest.json").write_text(json.dumps(content | {"sha256": digest(content)}))
    assert "manifest.json is damaged: dtype: input should be" in verify_store(store)[0]


def test_nothing_there_is_a_problem(tmp_path):
    assert "no token store" in verify_store(tmp_path / "gone")[0]


STORES = Path(__file__).parent / "stores"  # written before manifests were checked so closely


@pytest.mark.parametrize("name", ["documents", "tail"])
def test_stores_from_before_are_sound_and_open(name):
    assert verify_store(STORES / name) == []
    assert len(open_store(STORES / name).tokens("train")) > 100


def edit(store, change):
    """Change the manifest's JSON in any way and sign it anew."""
    content = json.loads((store / "manifest.json").read_text())
    del content["sha256"]
    change(content)
    (store / "manifest.json").write_text(json.dumps(content | {"sha256": digest(content)}))


def put(place, value):
    def change(content):
        *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        for key in path:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("splits.train.shards.0.file", "../x.bin", "splits.train.shards.0.file"),
        ("splits.train.shards.0.file", "/etc/passwd", "splits.train.shards.0.file"),
        ("splits.train.shards.0.file", "train-00000.bin\n", "splits.train.shards.0.file"),
        ("splits.train.shards.1.file", "train-00000.bin", "shard 1 of train is called"),
        ("splits.train.shards.0.file", "valid-00000.bin", "shard 0 of train is called"),
        ("splits.train.offsets.file", "valid-documents.bin", "the offsets of train are called"),
        ("splits.train.shards.0.count", 0, "greater than or equal to 1"),
        ("splits.train.shards.0.count", 600.0, "valid integer"),
        ("splits.train.shards.0.count", "600", "valid integer"),
        ("splits.train.shards.0.count", True, "valid integer"),
        ("splits.train.shards.0.count", 601, "holds 601 tokens instead of 600"),
        ("splits.train.shards.0.count", 10**400, "less than"),
        ("splits.train.shards.0.sha256", "F" * 64, "should match pattern"),
        ("splits.train.shards", {}, "valid tuple"),
        ("splits.train.offsets", None, "0 document offsets instead"),
        ("splits.train.tokens", 5, "tokens instead of 5"),
        ("splits.train.tokens", None, "valid integer"),
        ("splits.train.documents", -1, "greater than or equal to 0"),
        ("splits.train.documents", 10**9, "documents in"),
        ("splits.train.characters", 1, "1 characters in"),
        ("splits.train.characters", 2000, "characters instead of 2,000"),
        ("splits.train.bytes", 10**9, "bytes of UTF-8"),
        ("splits.train.unknown", 10**9, "unknown tokens among"),
        ("splits.train.unknown", 1, "holds 0 unknown tokens instead of 1"),
        ("splits.test", {}, "splits.test"),
        ("splits", [], "valid dictionary"),
        ("split.valid_fraction", -0.1, "greater than or equal to 0"),
        ("split.valid_fraction", 1, "less than 1"),
        ("split.valid_fraction", 0, "whole documents were held out"),
        ("split.valid_fraction", 0.5, "on the wrong side of a split with seed 0"),
        ("split.seed", 1, "on the wrong side of a split with seed 1"),
        ("split.asked", "tail", "whole documents were held out"),
        ("split.used", "tail", "with valid_fraction 0.1 of"),
        ("split.used", ["tail"], "'documents' or 'tail'"),
        ("tokenizer.vocab_size", 300, "knows 257 tokens, not 300"),
        ("tokenizer.vocab_size", 70_000, "are written as uint32, not uint16"),
        ("tokenizer.vocab_size", 0, "greater than or equal to 1"),
        ("tokenizer.end_of_text", 65, "separates documents with token 256, not 65"),
        ("tokenizer.end_of_text", 257, "lies outside the vocabulary"),
        ("tokenizer.kind", "characters", "is of the kind “bytes”"),
        ("tokenizer.kind", "\x1b[2J", "not “\\x1b[2J”"),
        ("tokenizer.fingerprint", "0" * 64, "is not the tokenizer"),
        ("shard_tokens", 601, "holds 600 tokens instead of 601"),
        ("shard_tokens", 80, "valid-00000.bin holds {valid} tokens instead of 80"),
        ("dtype", "uint32", "bytes instead of"),
        ("dtype", "int16", "'uint16' or 'uint32'"),
        ("format", 1, "something else's"),
        ("format", "\x1b[2J", "the format “\\x1b[2J”"),
        ("skipped", -1, "greater than or equal to 0"),
        ("problems", ["a reason"], "leaving out nothing"),
        ("more", 1, "extra inputs"),
    ],
)  # fmt: skip
def test_a_signed_manifest_is_held_to_what_it_means(store, place, value, why):
    why = why.replace("{valid}", str(read_manifest(store).splits["valid"].tokens))
    edit(store, put(place, value))
    problems = verify_store(store)
    assert any(why in problem for problem in problems), problems
    if not any(part in why for part in ("instead of 1", "instead of 2,000", "on the wrong side")):
        with pytest.raises(StoreError) as caught:
            open_store(store)
        assert caught.value.hint


def test_a_manifest_of_one_split_is_refused(store):
    edit(store, lambda content: content["splits"].pop("valid"))
    assert "at least 2 items" in verify_store(store)[0]


def test_a_token_that_only_the_manifest_knows_is_found(store):
    change_numbers(store, "train-00001.bin", "<u2", set_at(5, 299))
    rewrite(store, tokenizer__vocab_size=300)
    assert "the tokenizer knows 257 tokens, not 300" in verify_store(store)
    with pytest.raises(StoreError, match="knows 257 tokens, not 300"):
        open_store(store)


def test_counts_are_computed_again(tmp_path):
    """What fits together in the manifest is held against the text."""
    prepare(DOCUMENTS, tmp_path / "s", Bytes().build(), split="tail")
    record = read_manifest(tmp_path / "s").splits["valid"]
    rewrite(tmp_path / "s", splits__valid__bytes=record.bytes + 1)
    assert verify_store(tmp_path / "s") == [
        f"valid holds {record.bytes:,} bytes instead of {record.bytes + 1:,}"
    ]
    assert verify_store(tmp_path / "s", texts=False) == []


def test_other_tokens_of_the_same_text_are_found_even_if_signed(tmp_path):
    documents = [Document(f"{i}", "aa,ab,aa,ab,aab,") for i in range(9)]
    tokenizer = parse_tokenizer("bpe:259").build(document.text for document in documents)
    prepare(documents, tmp_path / "s", tokenizer, valid_fraction=0)
    known = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    either = [[known[b"aa"], known[b"b"]], [known[b"a"], known[b"ab"]]]
    assert tokenizer.encode("aab") in either
    wrong = next(pair for pair in either if pair != tokenizer.encode("aab"))
    place = len(tokenizer.encode("aa,ab,aa,ab,"))
    change_numbers(tmp_path / "s", "train-00000.bin", "<u2", set_at([place, place + 1], wrong))
    (problem,) = verify_store(tmp_path / "s")
    assert f"from position {place:,} on, the tokens are not those which" in problem
    open_store(tmp_path / "s")  # such damage is for `verify` to find


@pytest.mark.parametrize(
    ("name", "token", "why"),
    [
        ("bytes", 0xC3, "train: a document is not UTF-8 text"),
        ("characters", -1, "holds 1 unknown tokens instead of 0"),
    ],
)
def test_tokens_that_no_text_has_are_found_even_if_signed(tmp_path, name, token, why):
    tokenizer = parse_tokenizer(name).build(document.text for document in DOCUMENTS)
    prepare(DOCUMENTS, tmp_path / "s", tokenizer, shard_tokens=600)
    token = tokenizer.unknown_token if token < 0 else token
    change_numbers(tmp_path / "s", "train-00000.bin", "<u2", set_at(0, token))
    assert any(why in problem for problem in verify_store(tmp_path / "s"))


def test_unknown_characters_leave_room_for_their_length(tmp_path):
    tokenizer = parse_tokenizer("characters").build(["document 0,\n"])
    prepare(DOCUMENTS, tmp_path / "s", tokenizer)
    record = read_manifest(tmp_path / "s").splits["train"]
    assert record.unknown > 100
    assert verify_store(tmp_path / "s") == []
    rewrite(tmp_path / "s", splits__train__characters=record.characters + 10 * record.unknown + 1)
    assert any("instead of" in problem for problem in verify_store(tmp_path / "s"))


def test_a_shorter_text_is_found_even_if_signed(store):
    """The last shard is cut, and size, count and checksums are made to fit."""
    record = read_manifest(store).splits["train"]
    last = store / record.shards[-1].file
    last.write_bytes(last.read_bytes()[:-2])
    resign(store, last.name)
    count = record.shards[-1].count - 1
    edit(store, put(f"splits.train.shards.{len(record.shards) - 1}.count", count))
    edit(store, put("splits.train.tokens", record.tokens - 1))
    assert f"train holds {record.characters - 1:,} characters instead of" in verify_store(store)[0]


def test_documents_on_the_wrong_side_are_found_even_if_signed(tmp_path):
    """The first documents of either side, equally long, are exchanged."""
    documents = [Document(f"{i}", f"document {i:02}") for i in range(30)]
    store = prepare(documents, tmp_path / "s", Bytes().build(), valid_fraction=0.3).path
    train, valid = (np.fromfile(store / f"{name}-00000.bin", "<u2") for name in ("train", "valid"))
    train[:11], valid[:11] = valid[:11].copy(), train[:11].copy()
    train.tofile(store / "train-00000.bin")
    valid.tofile(store / "valid-00000.bin")
    resign(store, "train-00000.bin")
    resign(store, "valid-00000.bin")
    assert verify_store(store) == [
        "2 of 30 documents are on the wrong side of a split with seed 0 and valid_fraction 0.3"
    ]


def test_what_a_tokenizer_json_holds_beyond_its_tokenizer_is_found(tmp_path):
    tokenizer = parse_tokenizer("bpe:300").build(document.text for document in DOCUMENTS)
    prepare(DOCUMENTS, tmp_path / "s", tokenizer)
    file = tmp_path / "s" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["comment"] = "mine"
    file.write_text(json.dumps(content))
    assert verify_store(tmp_path / "s") == [
        "tokenizer.json holds more or other things than its tokenizer"
    ]


def a_socket(place):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(place))


ENTRIES = {
    "a folder": lambda place: place.mkdir(),
    "a link": lambda place: place.symlink_to("/etc/passwd"),
    "a pipe": os.mkfifo,
    "a socket": a_socket,
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_whatever_lies_in_the_folder_is_noticed(store, kind):
    ENTRIES[kind](store / ".more")
    assert verify_store(store) == [f".more ({kind}) does not belong to the store"]
    for name in ("train-00001.bin", "train-documents.bin", "tokenizer.json", "manifest.json"):
        whole = (store / name).read_bytes()
        (store / name).unlink()
        ENTRIES[kind](store / name)
        problems = verify_store(store)
        if name != "manifest.json":
            assert f"{name} is {kind}, not a file" in problems
        assert f".more ({kind}) does not belong to the store" in problems
        with pytest.raises(StoreError):
            open_store(store)
        (store / name).rmdir() if kind == "a folder" else (store / name).unlink()
        (store / name).write_bytes(whole)


def test_a_link_to_the_same_content_is_no_file_of_the_store(store, tmp_path):
    shutil.move(store / "manifest.json", tmp_path / "elsewhere")
    (store / "manifest.json").symlink_to(tmp_path / "elsewhere")
    assert verify_store(store) == ["manifest.json is a link, not a file"]
    with pytest.raises(StoreError, match=r"manifest\.json is a link"):
        open_store(store)


@pytest.mark.parametrize("name", ["train-00000.bin", "tokenizer.json", "manifest.json"])
def test_a_file_grown_beyond_all_memory_is_not_read(store, name):
    os.truncate(store / name, 1 << 42)  # a hole: it costs no space
    assert "bytes" in verify_store(store)[0]
    with pytest.raises(StoreError, match="bytes"):
        open_store(store)


def test_what_may_not_be_read_is_told(store, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("coterie.data.verify.read_numbers", refuse)
    assert "train-00000.bin cannot be read: Permission denied" in verify_store(store)
    monkeypatch.setattr("coterie.data.verify.os.scandir", refuse)
    assert "the folder cannot be listed: Permission denied" in verify_store(store)
    monkeypatch.setattr("coterie.data.store.np.memmap", refuse)
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(store)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/null", "", "gone/at/all"])
def test_names_of_no_store_are_told(name):
    Path("letter.txt").write_text("dear")
    assert len(verify_store(name)) == 1
    assert not is_store(name)
    with pytest.raises(StoreError):
        open_store(name)


def test_progress_is_told_in_characters(store):
    told = []
    verify_store(store, progress=lambda *news: told.append(news))
    total = sum(len(document.text) for document in DOCUMENTS)
    assert told[-1] == ("checking", total, total)
