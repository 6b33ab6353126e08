"""A store brings its tokenizer along, unless one is named beside it or after it."""

import pytest

from coterie.data import Document, prepare
from coterie.foundation.layers import Layer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.train.given import run_settings


@pytest.fixture
def store(tmp_path):
    texts = [Document(f"text {n}", f"{n} kings and a fool " * 9) for n in range(5)]
    prepare(texts, tmp_path / "store", parse_tokenizer("bytes").build())
    return str(tmp_path / "store")


def kind_of(tiny, *layers):
    base = Layer("preset", tiny().model_dump(mode="json"))
    return run_settings([base, *layers]).settings.tokenizer.kind


def test_a_store_named_later_brings_its_own(tiny, store):
    assert kind_of(tiny) == "characters"
    assert kind_of(tiny, Layer("words", {"data": {"store": store}})) == "file"


def test_one_that_is_named_beside_it_or_later_stays(tiny, store):
    both = {"data": {"store": store}, "tokenizer": {"kind": "characters"}}
    assert kind_of(tiny, Layer("words", both)) == "characters"
    later = Layer("file", {"tokenizer": {"kind": "characters"}})
    assert kind_of(tiny, Layer("words", {"data": {"store": store}}), later) == "characters"


def test_a_source_that_is_a_store_brings_it_too(tiny, store):
    block = {"paths": [store, store + "-not-there"], "merge_strategy": "equal"}
    assert kind_of(tiny, Layer("words", {"datasets": block})) == "file"


def test_the_stores_own_tokenizer_is_no_other(tiny, store):
    before = Layer("preset 2", {"tokenizer": {"kind": "bytes"}})
    assert kind_of(tiny, before, Layer("words", {"data": {"store": store}})) == "bytes"
