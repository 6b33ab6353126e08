"""Panels are laid out in the width there is."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from coterie.visualise.tables import Panel


def lines(panel, width):
    page = io.StringIO()
    Console(file=page, width=width).print(panel)
    return page.getvalue().splitlines()


@pytest.fixture
def panel():
    panel = Panel("A heading")
    for name, justify in (("name", "left"), ("n", "right"), ("words", "left")):
        panel.add_column(name, justify, width=4 if name == "n" else 0)
    panel.add_row("[red]", "1", "one two three four")
    panel.add_row(Text("שלום 🙂", "bold"), "12345", "five")
    return panel


def test_columns_are_as_wide_as_what_they_hold(panel):
    assert lines(panel, 60) == [
        "A heading",
        "name         n  words             ",
        "──────────────────────────────────",
        "[red]        1  one two three four",
        "שלום 🙂  12345  five              ",
        "",
    ]  # fmt: skip


def test_the_widest_column_of_words_is_wrapped(panel):
    found = lines(panel, 26)
    assert max(len(line) for line in found) <= 26
    assert [line.split() for line in found[3:5]] == [["[red]", "1", "one", "two"],
                                                     ["three", "four"]]  # fmt: skip


def test_what_has_no_room_is_cut(panel):
    assert all(len(line) <= 9 for line in lines(panel, 9))


def test_without_a_head():
    panel = Panel("Card")
    panel.show_header = False
    panel.add_column("a long name that is not shown", style="dim")
    panel.add_column()
    panel.add_row("load", "1.00")
    assert lines(panel, 40) == ["Card", "load  1.00", ""]
