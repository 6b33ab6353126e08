"""What is held out: the exact tail, or whole documents near the wished share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.documents import Document
from coterie.data.split import split_pieces, split_rule, survey
from coterie.foundation.errors import DataError


def divide(documents, keys, kind="documents", fraction=0.1, seed=0):
    """Return the documents' texts per split as [(split, text)], and the rule."""
    found = survey(documents, seed, keys)
    rule = split_rule(found, kind, fraction)
    parts: list[tuple[str, str]] = []
    for piece in split_pieces(documents, found, rule):
        if piece.starts:
            parts.append((piece.split, piece.text))
        else:
            split, text = parts[-1]
            assert split == piece.split
            parts[-1] = (split, text + piece.text)
    return parts, rule


def of(split, parts):
    return [text for name, text in parts if name == split]


def books(count, length=50):
    return [Document(f"{i}", f"{i:04d}" * length) for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    fraction=st.floats(0, 0.95),
    cuts=st.integers(1, 9),
)
def test_the_tail_is_the_last_fraction_of_all_characters(tmp_path_factory, lengths, fraction, cuts):
    whole = [chr(97 + i) * length for i, length in enumerate(lengths)]
    documents = [
        Document(str(i), text[at : at + cuts], continued=at > 0)
        for i, text in enumerate(whole)
        for at in range(0, len(text), cuts)
    ]
    everything = "".join(whole)
    expected = int(len(everything) * (1 - fraction))
    keys = tmp_path_factory.mktemp("split") / "keys"
    if expected == 0:
        with pytest.raises(DataError, match="nothing is left to train on"):
            divide(documents, keys, "tail", fraction)
        return
    parts, rule = divide(documents, keys, "tail", fraction)
    assert "".join(of("train", parts)) == everything[:expected]
    assert "".join(of("valid", parts)) == everything[expected:]
    assert rule.cut == expected
    # Documents stay apart: no part holds two of them.
    assert all(len(set(text)) == 1 for _, text in parts)


def test_whole_documents_are_held_out_near_the_wished_share(tmp_path):
    documents = books(200)
    parts, rule = divide(documents, tmp_path / "keys", fraction=0.1)
    held = of("valid", parts)
    assert rule.kind == "documents"
    assert 18 <= len(held) <= 22
    assert set(held) | set(of("train", parts)) == {document.text for document in documents}
    assert not set(held) & set(of("train", parts))


def test_the_choice_depends_on_content_and_seed_alone(tmp_path):
    documents = books(50)
    first, _ = divide(documents, tmp_path / "keys")
    renamed = [Document("elsewhere/" + d.name, d.text) for d in reversed(documents)]
    again, _ = divide(renamed, tmp_path / "keys")
    assert sorted(first) == sorted(again)
    other, _ = divide(documents, tmp_path / "keys", seed=1)
    assert sorted(first) != sorted(other)


def test_the_choice_is_the_same_in_every_process(tmp_path):
    """A salted hash would move documents between runs; these were chosen once and for all."""
    parts, _ = divide(books(20), tmp_path / "keys")
    assert [text[:4] for text in of("valid", parts)] == HELD_OUT


HELD_OUT = ["0004", "0019"]


def test_equal_documents_never_stand_on_both_sides(tmp_path):
    documents = [Document(str(i), text) for i, text in enumerate("abcdefgh" * 5)]
    parts, _ = divide(documents, tmp_path / "keys", fraction=0.3)
    assert of("valid", parts)
    assert not set(of("valid", parts)) & set(of("train", parts))


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_at_least_one_document_on_each_side(tmp_path, fraction):
    parts, _ = divide(books(5), tmp_path / "keys", fraction=fraction)
    assert {split for split, _ in parts} == {"train", "valid"}
    assert len(of("valid" if fraction < 0.5 else "train", parts)) == 1


@pytest.mark.parametrize(
    ("documents", "why"),
    [([Document("a", "x" * 100)], "only one document"), (books(1) * 3, "documents are equal")],
)
def test_where_documents_cannot_be_divided_the_tail_is(tmp_path, documents, why):
    parts, rule = divide(documents, tmp_path / "keys")
    assert rule.kind == "tail"
    assert why in rule.note
    total = sum(len(document.text) for document in documents)
    assert sum(map(len, of("train", parts))) == int(total * 0.9)


def test_nothing_may_be_held_out(tmp_path):
    parts, rule = divide(books(3), tmp_path / "keys", fraction=0)
    assert of("valid", parts) == []
    assert rule.note == ""


def test_wrong_fractions_and_empty_input_are_refused(tmp_path):
    for fraction in (-0.1, 1.0, 7):
        with pytest.raises(DataError, match="valid_fraction"):
            divide(books(3), tmp_path / "keys", fraction=fraction)
    with pytest.raises(DataError, match="no text"):
        survey([Document("a", "")], 0, tmp_path / "keys")


@pytest.mark.parametrize("kind", ["tail", "documents"])
def test_input_that_changes_while_it_is_read_is_noticed(tmp_path, kind):
    documents = books(9)
    found = survey(documents, 0, tmp_path / "keys")
    rule = split_rule(found, kind, 0.2)
    swapped = Document(documents[4].name, documents[4].text[::-1])  # as many characters
    for other in (
        documents[:-1],
        [*documents, Document("new", "text")],
        [*documents[:4], swapped, *documents[5:]],
        [*documents[:4], documents[5], documents[4], *documents[6:]],
    ):
        with pytest.raises(DataError, match="changed while it was read"):
            list(split_pieces(other, found, rule))
