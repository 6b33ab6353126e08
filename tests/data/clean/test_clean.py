"""Cleaners one after another, and what a store says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from coterie.data import (
    DataSettings,
    Document,
    Sources,
    open_store,
    prepare,
    store_for,
    verify_store,
)
from coterie.data.clean import Whitespace, cleaned
from coterie.data.manifest import FILE_NAME
from coterie.foundation.settings import Settings
from coterie.tokenizer.raw_bytes import Bytes


class Upper(Settings):
    """A cleaner from outside: capitals, and nothing that mentions a secret."""

    kind: str
    secret: str = "secret"

    def build(self):
        def clean(document):
            if self.secret in document.text:
                return None
            return replace(document, text=document.text.upper())

        return clean


OUTSIDER = {"kind": f"{__name__}:Upper"}


def test_cleaners_work_in_turn_on_whole_documents():
    documents = [
        Document("a", "one  \n"), Document("a", "two ", continued=True), Document("b", "a secret"),
        Document("c", " "), Document("d", "three"),
    ]  # fmt: skip
    left_out = []
    cleaners = [Whitespace().build(), Upper(kind="x").build()]
    found = list(cleaned(documents, cleaners, lambda document: left_out.append(document.name)))
    assert [(d.name, d.text) for d in found] == [("a", "ONE\nTWO"), ("d", "THREE")]
    assert left_out == ["b", "c"]


def test_a_store_says_how_its_text_was_cleaned(tmp_path):
    (tmp_path / "book.txt").write_text("one  \n\n\n\ntwo\n" * 20)
    plain = prepare(Sources([tmp_path / "book.txt"]), tmp_path / "plain", Bytes().build())
    settings = DataSettings.model_validate(
        {"source": str(tmp_path / "book.txt"), "clean": ["whitespace", OUTSIDER]}
    )
    store = store_for(settings, Bytes(), tmp_path / "cache")
    assert store.manifest.clean == (
        {"kind": "whitespace", "blank_lines": 1}, OUTSIDER | {"secret": "secret"},
    )  # fmt: skip
    text = store.tokenizer.decode(store.tokens("train")[:])
    assert text.startswith("ONE\n\nTWO\nONE")
    assert verify_store(store.path) == []
    assert open_store(store.path).manifest == store.manifest
    assert '"clean"' not in (plain.path / FILE_NAME).read_text()  # as before there was cleaning
    again = store_for(settings.model_copy(update={"clean": ()}), Bytes(), tmp_path / "cache")
    assert again.path != store.path
    assert again.fingerprint == plain.fingerprint != store.fingerprint


def test_an_unknown_cleaner_is_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match="whitespace"):
        DataSettings.model_validate({"clean": ["whitspace"]})
