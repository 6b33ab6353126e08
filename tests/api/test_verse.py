"""Verse from Python: marks stand above their syllables, tagged drama is judged as such."""

from __future__ import annotations

from coterie.api.verse import marked, scan, score


def test_marks_stand_above_vowels():
    line = "Shall I compare thee to a summer's day?"
    marks = marked(line, scan(line))
    assert [line[at] for at, mark in enumerate(marks) if mark != " "] == list("aIoaeoauea")
    assert [mark for mark in marks if mark != " "] == list("x/x/x/x/x/")


def test_an_unscannable_line_has_no_marks():
    line = "No."
    assert marked(line, scan(line)) == ""


def test_only_tagged_text_has_structure():
    assert "structure" not in score("A line of words")
    assert score("<POEM>P</POEM>\nA line of words\n")["structure"]["well_formed"]
