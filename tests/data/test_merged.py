"""Stores merged into one: what is refused, what is read, and what moves along."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from coterie.data import BatchLoader, Document, open_store, prepare, verify_store
from coterie.data.examine import examine_store
from coterie.data.manifest import FILE_NAME, write_signed
from coterie.data.merged import MergedStore, held_out, merge
from coterie.data.mix import Equal, Weighted
from coterie.foundation.errors import DataError, StoreError, UserError
from coterie.tokenizer.raw_bytes import Bytes

MIX = Weighted(weights=(1.7, 0.3))


def texts(name: str, count: int) -> list[Document]:
    return [
        Document(f"{name}{i}", f"{name} {i} says: " + "abc" * (5 + i % 7)) for i in range(count)
    ]


@pytest.fixture
def tree(tmp_path):
    for name, count in (("verse", 40), ("prose", 15)):
        prepare(texts(name, count), tmp_path / "stores" / name, Bytes().build())
    return tmp_path


@pytest.fixture
def stores(tree):
    return [tree / "stores" / name for name in ("verse", "prose")]


def size(folder) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("copy", [False, True])
def test_a_merged_store_is_opened_as_it_was_made_and_verified(stores, tree, copy):
    made = merge(stores, tree / "both", MIX, copy=copy)
    opened = open_store(tree / "both")
    assert isinstance(opened, MergedStore)
    assert opened.fingerprint == made.fingerprint
    assert opened.mix == MIX
    assert list(opened.sources) == ["verse", "prose"]
    opened.check_content()
    found = examine_store(tree / "both")
    assert found.problems == []
    assert found.parts == {"verse": [], "prose": []}
    assert found.mixture.achieved == pytest.approx({"verse": 0.85, "prose": 0.15})
    assert found.mixture.distance < 1
    assert found.leak.documents == sum(
        store.manifest.splits["valid"].documents for store in held_out(opened).values()
    )
    assert found.leak.equal == 0
    assert (size(tree / "both") > size(stores[0])) == copy


def test_a_folder_tree_may_move_and_a_copy_stands_alone(stores, tree):
    merge(stores, tree / "mixes" / "both", MIX)
    merge(stores, tree / "copy", MIX, copy=True)
    before = open_store(tree / "mixes" / "both").fingerprint
    (tree / "moved").mkdir()
    for name in ("stores", "mixes"):
        shutil.move(tree / name, tree / "moved" / name)
    assert open_store(tree / "moved" / "mixes" / "both").fingerprint == before
    shutil.rmtree(tree / "moved")
    assert open_store(tree / "copy").fingerprint == before
    assert verify_store(tree / "copy") == []


def test_rows_are_those_of_the_stores_in_their_ratio(stores, tree):
    store = merge(stores, tree / "both", MIX)
    splits = {name: each.tokens("train") for name, each in store.sources.items()}
    batch = BatchLoader(splits, 16, 40, seed=1, mix=store.mix).batch(2)
    assert np.bincount(batch.sources).tolist() == [34, 6]
    alone = BatchLoader(splits["prose"], 16, 6, seed=1).batch(2)
    assert batch.tokens[batch.sources == 1].tolist() == alone.tokens.tolist()


def test_stores_that_cannot_be_merged_are_refused_and_nothing_is_left(stores, tree):
    other = prepare(texts("x", 9), tree / "other", Bytes(special_tokens=("<X>",)).build())
    merge(stores, tree / "both", MIX)
    first = stores[0]
    for those, mix, why in (
        ([first, tree / "none"], MIX, "no token store at"),
        ([first, other.path], MIX, "different tokenizers cannot be mixed"),
        ([first, first], MIX, "named twice"),
        ([first], MIX, "Two stores at least"),
        ([first, tree / "both"], MIX, "is itself a merged store"),
        (stores, Weighted(weights=(1.0,)), "1 weights were given for 2 sources"),
        (stores, Weighted(weights={"verse": 1.0, "rhyme": 1.0}), "no such source"),
    ):
        with pytest.raises((StoreError, DataError), match=why):
            merge(those, tree / "out", mix)
        assert not (tree / "out").exists()
    with pytest.raises(UserError, match="exists already"):
        merge(stores, tree / "both", Equal())
    with pytest.raises(StoreError, match="cannot be merged into itself"):
        merge([tree / "both", first], tree / "both", Equal(), replace=True)
    assert merge(stores, tree / "both", Equal(), replace=True).mix == Equal()


def test_equal_names_are_told_apart(stores, tree):
    again = prepare(texts("other", 9), tree / "more" / "verse", Bytes().build())
    store = merge([*stores, again.path], tree / "both")
    assert list(store.sources) == ["verse", "prose", "verse-2"]


def changed(tree, change):
    content = json.loads((tree / "both" / FILE_NAME).read_text())
    content.pop("sha256")
    change(content)
    write_signed(tree / "both", content)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda tree: shutil.rmtree(tree / "stores" / "prose"), "prose"),
        (lambda tree: (tree / "both" / "x").write_text("x"), "x (a file) does not belong"),
        (lambda tree: (tree / "both" / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda tree: (tree / "stores" / "prose" / "train-00000.bin").unlink(), "is missing"),
        (lambda tree: prepare(texts("new", 9), tree / "stores" / "prose", Bytes().build(),
                              replace=True), "fingerprint"),
        (lambda tree: changed(tree, lambda c: c["parts"][0].update(name="prose")), "2 times"),
        (lambda tree: changed(tree, lambda c: c["parts"][0].update(path=".")), "relative"),
        (lambda tree: changed(tree, lambda c: c["parts"].pop()), "parts"),
        (lambda tree: changed(tree, lambda c: c["mix"].update(weights=[1.0])), "1 weights"),
        (lambda tree: changed(tree, lambda c: c["parts"][1]["tokens"].update(train=7)), "tokens"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_by_readers_and_by_verification(stores, tree, damage, why):
    merge(stores, tree / "both", MIX)
    damage(tree)
    assert any(why in problem for problem in verify_store(tree / "both"))
    if "does not belong" not in why:
        with pytest.raises(StoreError):
            open_store(tree / "both")


def test_what_training_repeats_of_another_validation_is_told(stores, tree):
    held = open_store(stores[0])
    twin = prepare(texts("verse", 40), tree / "twin", Bytes().build(), valid_fraction=0)
    merge([stores[0], twin.path], tree / "both")
    leak = examine_store(tree / "both").leak
    assert leak.equal == leak.documents == held.manifest.splits["valid"].documents
