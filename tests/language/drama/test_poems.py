"""Poems lose their title page, licence and rules, and keep their parts, stanzas and lines."""

from pathlib import Path

from coterie.language.drama.poems import parse_poem
from coterie.language.drama.tags import check_tagged, to_tagged
from coterie.language.drama.typography import LOST

SAMPLE = Path(__file__).parent / "samples" / "poem.txt"


def test_parts_stanzas_and_a_lost_line() -> None:
    poem = parse_poem(SAMPLE.read_text("utf-8"), title="The Rape of Lucrece")
    assert [(part.name, len(part.stanzas)) for part in poem.parts] == [
        ("DEDICATION", 3),
        ("THE ARGUMENT", 1),
        ("THE POEM", 2),
        ("THRENOS", 1),
        ("XCIX", 1),
    ]
    assert poem.parts[2].stanzas == (
        ("From the besieged Ardea all in post,", "And girdle with embracing flames the waist"),
        ("Haply that name of chaste unhapp'ly set", LOST),
    )
    assert poem.problems == ()


def test_what_is_left_out_is_accounted_for() -> None:
    poem = parse_poem(SAMPLE.read_text("utf-8"), title="The Rape of Lucrece")
    assert [piece.reason for piece in poem.removed] == [
        "licence",
        "licence",
        "the source's title",
        "the title page",
        "the title page",
        "a rule between two parts",
    ]
    text = to_tagged(poem)
    assert "GUTENBERG" not in text
    assert "note" not in text
    assert check_tagged(text) == []


def test_a_poem_without_parts_is_one_part_without_a_name() -> None:
    poem = parse_poem("TITLE\n\nOne.\nTwo.\n\nThree.", title="Title")
    assert to_tagged(poem) == "<POEM>Title</POEM>\nOne.\nTwo.\n\nThree.\n"


def test_marks_in_the_words_are_reported() -> None:
    poem = parse_poem("TITLE\n\nOne <b>.\n", title="Title")
    assert [problem.line for problem in poem.problems] == [3]
    assert check_tagged(to_tagged(poem)) == []
