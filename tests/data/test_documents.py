"""Documents: what is known of a text stays true where it is cut, joined and edited."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.data.documents import Document, Span, joined, whole_documents
from coterie.foundation.errors import DataError


def labelled(document):
    return [(span.label, document.text[span.start : span.end]) for span in document.spans]


@st.composite
def documents(draw):
    text = draw(st.text("abc\n", max_size=30))
    places = st.integers(0, len(text))
    pairs = draw(st.lists(st.tuples(places, places), max_size=4))
    spans = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    spans = tuple(Span(str(number), *pair) for number, pair in enumerate(spans))
    return Document("d", text, source="file", language="de", spans=spans)


@given(documents(), st.lists(st.integers(0, 30), max_size=4))
def test_pieces_joined_are_the_whole_with_its_spans_in_parts(document, cuts):
    edges = sorted({0, len(document.text), *(min(cut, len(document.text)) for cut in cuts)})
    pieces = [document.cut(a, b) for a, b in itertools.pairwise(edges)] or [document]
    assert [piece.continued for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    assert all((p.name, p.source, p.language) == ("d", "file", "de") for p in pieces)
    (whole,) = whole_documents(pieces)
    assert whole == joined(pieces)
    assert whole.text == document.text
    for span in document.spans:
        parts = [each for each in whole.spans if each.label == span.label]
        assert (parts[0].start, parts[-1].end) == (span.start, span.end)
        for one, other in itertools.pairwise(parts):
            assert one.end == other.start


@given(documents(), st.data())
def test_spans_keep_what_they_label_when_text_is_edited(document, data):
    length = len(document.text)
    edges = sorted(data.draw(st.lists(st.integers(0, length), max_size=6)))
    pairs = [*zip(edges[::2], edges[1::2], strict=False)]
    edits = [(a, b, data.draw(st.sampled_from(["", "x", "xxxxx"]))) for a, b in pairs if a < b]
    edited = document.edited(edits)
    # The characters that no edit touched, and in which spans each of them lies, are the same.
    kept, new = [], []
    for at, character in enumerate(document.text):
        if not any(start <= at < end for start, end, _ in edits):
            kept.append((character, {s.label for s in document.spans if s.start <= at < s.end}))
    for at, character in enumerate(edited.text):
        if character != "x":
            new.append((character, {s.label for s in edited.spans if s.start <= at < s.end}))
    assert new == kept
    assert all(0 <= span.start < span.end <= len(edited.text) for span in edited.spans)


def test_a_replaced_word_keeps_its_label_and_a_deleted_one_loses_it():
    document = Document("d", "one two three", spans=(Span("a", 4, 7), Span("b", 8, 13)))
    assert labelled(document.edited([(4, 7, "zwei")])) == [("a", "zwei"), ("b", "three")]
    assert labelled(document.edited([(3, 7, "")])) == [("b", "three")]


def test_a_text_too_large_for_memory_is_named():
    def pieces():
        yield Document("vast.txt", "And ")
        raise MemoryError

    with pytest.raises(DataError, match=r"vast\.txt is worked on as a whole"):
        list(whole_documents(pieces()))
