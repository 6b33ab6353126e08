"""Encoding long documents: cut where that changes nothing, refused by name where nothing may be."""

from __future__ import annotations

import random

import pytest

from coterie.data import Document, Sources, encode, open_store, prepare
from coterie.data.documents import Span
from coterie.data.encode import cut_pieces, encode_pieces
from coterie.data.split import Piece
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import parse_tokenizer

LINE = "It was a long line, of 1000 words and no end; 你好，世界。 "


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(encode, "CUT_AT", 64)
    monkeypatch.setattr(encode, "CUT_REACH", 32)
    monkeypatch.setattr("coterie.tokenizer.cuts.CUT_REACH", 32)


def in_pieces(text, size=100):
    return [
        Document("d", text[at : at + size], continued=at > 0) for at in range(0, len(text), size)
    ]


@pytest.mark.parametrize("name", ["gpt2", "o200k_base", "bpe:300", "bytes", "characters"])
def test_a_line_without_end_is_cut_and_keeps_its_tokens(tmp_path, name):
    text = LINE * 60
    tokenizer = parse_tokenizer(name).build([text])
    pieces = list(cut_pieces([Piece("train", Document("d", text))], tokenizer))
    assert max(len(piece.text) for piece in pieces) <= 200
    assert all(piece.document.name == "d" for piece in pieces)
    store = prepare(in_pieces(text), tmp_path / "s", tokenizer, valid_fraction=0)
    assert store.tokens("train")[:].tolist() == tokenizer.encode(text)


def test_what_is_known_of_a_document_comes_with_each_piece(limited):
    text = LINE * 9
    spans = tuple(Span("word", at, at + 4) for at in range(0, len(text) - 4, 37))
    whole = Document("d", text, source="file", language="en", spans=spans)
    documents = [whole.cut(at, at + 50) for at in range(0, len(text), 50)]
    pieces = [each.document for each in cut_pieces([Piece("train", d) for d in documents], limited)]
    assert len(pieces) > 2
    assert {(each.source, each.language) for each in pieces} == {("file", "en")}
    labelled = "".join(each.text[s.start : s.end] for each in pieces for s in each.spans)
    assert labelled == "".join(text[span.start : span.end] for span in spans)


def test_a_place_between_the_looked_at_ones_is_found(monkeypatch):
    # One blank, far from every multiple of CUT_AT: found by looking on without a gap.
    text = "x" * 170 + " " + "y" * 100
    tokenizer = parse_tokenizer("gpt2").build()
    assert [piece.text for piece in cut_pieces([Piece("t", Document("d", text))], tokenizer)] == [
        "x" * 170, " " + "y" * 100,
    ]  # fmt: skip


@pytest.fixture
def limited(monkeypatch):
    """A tokenizer that encodes words of at most 300 characters."""
    monkeypatch.setattr(Tokenizer, "longest_word", 300)
    return parse_tokenizer("gpt2").build()


def test_a_word_without_end_is_refused_by_name(tmp_path, limited):
    documents = [Document("a", "fine"), *(in_pieces("x" * 900)), Document("b", "fine, too")]
    with pytest.raises(
        TokenizerError, match=r"^d: a word .* of more than 300 characters"
    ) as caught:
        prepare(documents, tmp_path / "s", limited, valid_fraction=0)
    assert "“bytes”" in caught.value.message
    assert not (tmp_path / "s").exists()
    prepare(documents, tmp_path / "s", parse_tokenizer("bytes").build(), valid_fraction=0)


@pytest.mark.parametrize("split", ["documents", "tail"])
def test_documents_that_cannot_be_encoded_are_left_out_like_rows(tmp_path, limited, split):
    rng = random.Random(1)
    rows = [f"row {n} " + "".join(rng.choices("ab ", k=50)) for n in range(30)]
    good = [row for n, row in enumerate(rows) if n not in (3, 17)]
    for number in (3, 17):
        rows[number] = f"begins well, {LINE * 3}" + "x" * 500 + LINE
    lines = [f'{{"text": "{row}"}}' for row in [*rows, "…"]]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(TokenizerError, match=r"a\.jsonl:4: a word") as caught:
        prepare(Sources([path]), tmp_path / "s", limited)
    path.write_text("\n".join([*lines, "{"]))
    assert "--on-error skip" in caught.value.hint
    store = prepare(
        Sources([path], on_error="skip"), tmp_path / "s", limited, split=split, valid_fraction=0.2
    )
    clean = prepare([*map(_document, [*good, "…"])], tmp_path / "c", limited, split=split,
                    valid_fraction=0.2)  # fmt: skip
    assert store.fingerprint == clean.fingerprint  # as if they had never been there
    manifest = open_store(tmp_path / "s").manifest
    assert manifest.skipped == 3
    assert [problem.partition(": ")[0].rpartition(":")[2] for problem in manifest.problems] == [
        "32", "4", "18",
    ]  # fmt: skip


def _document(text):
    return Document("x", text)


def test_a_failing_document_is_told_beside_good_ones(limited, monkeypatch):
    real = type(limited).encode_array

    def refuse(self, text, **options):
        if "bad" in text:
            raise TokenizerError("It refuses.")
        return real(self, text, **options)

    monkeypatch.setattr(type(limited), "encode_array", refuse)
    pieces = [
        Piece("t", Document("a", "good")),
        Piece("t", Document("b", "bad")),
        Piece("t", Document("c", "ok")),
    ]
    for workers in (1, 3):
        found = list(encode_pieces(pieces, limited, workers))
        assert [(piece.name, piece.problem) for piece in found] == [
            ("a", ""), ("b", "It refuses"), ("c", ""),
        ]  # fmt: skip
