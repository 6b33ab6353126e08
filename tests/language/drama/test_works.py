"""Collected works: where a new one begins, and what is told of the rest."""

from __future__ import annotations

import pytest

from coterie.language.drama.works import divided

LISTED = """The Works

by Somebody

    Table of Contents.

    THE FIRST PLAY ........ 3
    A LOST PLAY             40

    HENRY VI . . . . . . .  77
    Chapter of Accidents
    ACT I


THE FIRST PLAY


Words of the first. HENRY VI
is named here.

ACT I

More words.

Henry VI.

Words of the second.
"""
BOOKS = "".join(
    f"Preamble {n}\n*** START OF THE PROJECT GUTENBERG EBOOK BOOK {n} ***\nWords of {n}.\n"
    f"*** END OF THE PROJECT GUTENBERG EBOOK BOOK {n} ***\nLicence.\n"
    for n in "AB"
)
MARKDOWN = "Before\n# HAMLET\n## Act I\nWords.\n# ACT II\nMore.\n# OTHELLO\nOthers.\n"


def test_titles_of_a_list_of_contents_begin_works_and_chapters_do_not():
    first, second = divided(LISTED)
    assert (first.title, second.title) == ("THE FIRST PLAY", "HENRY VI")
    assert second.text == "Henry VI.\n\nWords of the second.\n"
    assert LISTED.splitlines()[second.line - 1] == "Henry VI."
    assert [(each.text, each.line) for each in first.missed] == [("A LOST PLAY", 8)]
    assert "".join(each.text for each in first.told) + first.text + second.text == LISTED


def test_books_between_markers_and_markdown_titles_begin_works():
    one, other = divided(BOOKS)
    assert (one.title, other.title) == ("BOOK A", "BOOK B")
    assert one.text + other.text == BOOKS
    assert other.text.startswith("*** START")
    play, last = divided(MARKDOWN)
    assert (play.title, play.line, last.title, last.line) == ("HAMLET", 2, "OTHELLO", 7)
    assert "# ACT II" in play.text
    assert [each.text for each in play.told] == ["Before\n"]
    both = divided(BOOKS + MARKDOWN)
    assert [each.title for each in both] == ["BOOK A", "HAMLET", "OTHELLO"]
    assert (BOOKS + MARKDOWN).splitlines()[both[1].line - 1] == "# HAMLET"


@pytest.mark.parametrize(
    "text", ["", "words\n", "# One\nwords\n", "Contents\n\nACT I\nACT II\n\n\nACT I\n\nwords\n"]
)
def test_a_text_without_signs_is_one_work(text):
    (work,) = divided(text)
    assert (work.title, work.line, work.text, work.told) == ("", 1, text, ())
