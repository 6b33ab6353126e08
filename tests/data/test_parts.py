"""Parts that know nothing of one another give the store of a single preparation."""

from __future__ import annotations

import random
import shutil

import pytest

import coterie
from coterie.data import Sources, prepare, verify_store
from coterie.data.parts import join_parts, parse_part, prepare_part
from coterie.foundation.errors import DataError, UserError
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.settings import parse_tokenizer

BYTES = Bytes().build()


@pytest.fixture
def inputs(tmp_path):
    draws = random.Random(1)
    words = ["the", "quality", "of", "mercy", "is", "not", "ünd", "so", "fort\n"]
    for folder, count in (("a", 7), ("b", 4)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            text = " ".join(draws.choices(words, k=draws.randrange(5, 300)))
            (tmp_path / folder / f"{number}.txt").write_text(text)
    (tmp_path / "b" / "rows.jsonl").write_text('{"text": "row"}\n{\n{"text": "another"}\n')
    return [tmp_path / "a", tmp_path / "b"]


def parted(inputs, out, count, tokenizer=BYTES):
    for number in range(1, count + 1):
        sources = Sources(inputs, on_error="skip")
        prepare_part(sources, out / f"p{number}", tokenizer, (number, count))
    return [out / f"p{number}" for number in range(count, 0, -1)]


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("split", ["documents", "tail"])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_any_number_of_parts_gives_the_same_bytes(inputs, tmp_path, count, split):
    tokenizer = parse_tokenizer("gpt2").build() if count == 3 else BYTES
    how = {"valid_fraction": 0.3, "split": split, "shard_tokens": 300}
    whole = prepare(Sources(inputs, on_error="skip"), tmp_path / "whole", tokenizer, **how)
    assert whole.manifest.skipped == 1
    parts = parted(inputs, tmp_path, count, tokenizer)
    joined = join_parts(parts, tmp_path / "joined", **how)
    assert content(joined.path) == content(whole.path)
    assert verify_store(joined.path) == []


def test_what_does_not_belong_together_is_refused(inputs, tmp_path):
    parts = parted(inputs, tmp_path, 3)
    for given, why in (
        (parts[:2], "Part 1 of 3 is missing"),
        ([*parts, parts[0]], "Part 3 of 3 was named twice"),
        ([tmp_path / "gone"], "There is no part"),
        ([], "No part was named"),
    ):
        with pytest.raises(DataError, match=why):
            join_parts(given, tmp_path / "s")
    prepare_part(Sources(inputs, on_error="skip"), tmp_path / "q", BYTES, (2, 3), seed=1)
    with pytest.raises(DataError, match="differ in their seed"):
        join_parts([parts[0], tmp_path / "q", parts[2]], tmp_path / "s")
    for file in ("documents.bin", "store/train-00000.bin"):
        copy = shutil.copytree(parts[1], tmp_path / f"damaged-{file[:3]}")
        (copy / file).write_bytes(b"\1\2" + (copy / file).read_bytes()[2:])
        with pytest.raises(UserError, match="checksum"):
            join_parts([parts[0], copy, parts[2]], tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_tail_inside_a_text_that_cannot_be_had_is_refused(inputs, tmp_path, monkeypatch):
    parts = parted(inputs, tmp_path, 2)
    monkeypatch.setattr(type(BYTES), "keeps_text", False)
    with pytest.raises(DataError, match="does not return its text") as caught:
        join_parts(parts, tmp_path / "s", split="tail")
    assert "--split documents" in caught.value.hint


def test_parts_are_named_and_share_a_tokenizer(inputs, tmp_path):
    assert parse_part("2/8") == (2, 8)
    for wrong in ("0/3", "4/3", "2", "a/b", "1/0", ""):
        with pytest.raises(DataError, match="2/8"):
            parse_part(wrong)
    for kind in ("characters", "bpe:300"):
        with pytest.raises(UserError, match="all parts must share") as caught:
            coterie.prepare_part(inputs, tmp_path / "p", "1/2", tokenizer=kind)
        assert "coterie tokenizer train" in caught.value.hint
    (tmp_path / "b" / "rows.jsonl").unlink()
    for number in (1, 2):
        coterie.prepare_part(inputs, tmp_path / f"{number}", f"{number}/2", tokenizer="bytes")
    store = coterie.join([tmp_path / "1", tmp_path / "2"], tmp_path / "s")
    assert (
        store.fingerprint == coterie.prepare(inputs, tmp_path / "t", tokenizer="bytes").fingerprint
    )
