"""Whitespace: one form, whatever it was; nothing else changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.data.clean import Whitespace
from coterie.data.documents import Document, Span


def clean(text, **options):
    found = Whitespace(**options).build()(Document("d", text))
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\r\nb\rc\u2028d\n", "a\nb\nc\nd\n"),
        ("a \t\n  b\u00a0\n", "a\n  b\n"),
        ("\n\n a\n\n\n \n\nb\n\n\n", " a\n\nb\n"),
        ("a", "a"),
        ("a   ", "a"),
        ("a\n\n  ", "a\n"),
        ("a  b\n\nc\n", "a  b\n\nc\n"),
        (" \n\t\r\n", None),
        ("", None),
    ],
)
def test_one_form(text, wanted):
    assert clean(text) == wanted


def test_how_many_blank_lines_stay_is_said():
    assert [clean("a\n\n\n\nb", blank_lines=n) for n in (0, 2, 9)] == [
        "a\nb", "a\n\n\nb", "a\n\n\n\nb",
    ]  # fmt: skip


@given(st.text(" \t\n\r\x0b\u2028ab", max_size=40), st.integers(0, 2))
def test_it_is_done_once_and_for_all(text, blank_lines):
    found = clean(text, blank_lines=blank_lines)
    if found is None:
        assert not text.strip()
        return
    assert clean(found, blank_lines=blank_lines) == found
    assert re.sub(r"\s", "", found) == re.sub(r"\s", "", text)
    assert not re.search(r"[ \t]\n|[ \t]$|[\r\x0b\u2028]", found)
    assert "\n" * (blank_lines + 2) not in found


def test_spans_move_along():
    document = Document("d", "one  \r\n\n\n\ntwo", spans=(Span("word", 10, 13), Span("gap", 3, 7)))
    cleaned = Whitespace().build()(document)
    assert cleaned is not None
    assert [(s.label, cleaned.text[s.start : s.end]) for s in cleaned.spans] == [
        ("word", "two"), ("gap", "\n"),
    ]  # fmt: skip


def test_a_long_run_of_blanks_takes_no_longer_than_other_text():
    assert clean("a" + " " * 200_000 + "b") is not None
    assert clean(" \n" * 200_000 + "b") == "b"
