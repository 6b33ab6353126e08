"""Each irregularity of the Markdown plays is read; what is not understood is reported."""

from pathlib import Path

import pytest

from coterie.language.drama.reader import UNKNOWN, parse_play
from coterie.language.drama.structure import Direction, Line, Speech
from coterie.language.drama.tags import check_tagged, to_tagged

SAMPLES = Path(__file__).parent / "samples"
HEAD = "# T\n\n## ACT I\n\n### SCENE I. A room.\n\n"


def test_every_irregularity_of_the_source_is_read() -> None:
    play = parse_play((SAMPLES / "irregular.md").read_text("utf-8"))
    assert to_tagged(play) == (SAMPLES / "irregular.txt").read_text("utf-8")
    assert play.problems == ()
    assert check_tagged(to_tagged(play)) == []


def test_a_running_title_is_left_out_and_accounted_for() -> None:
    play = parse_play((SAMPLES / "irregular.md").read_text("utf-8"))
    assert [(piece.text, piece.reason) for piece in play.removed] == [
        ("LOVE'S LABOURS LOST", "running title")
    ]


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("## ACT I\n\nWords.\n", 3, "words outside a scene"),
        ("# T\n\n## ACT I\n\n**A**\nWords.\n", 5, "a speaker outside a scene"),
        (HEAD + "_Enter A_\n\nWords.\n", 9, "words without a speaker"),
        (HEAD + "## CHAPTER I\n", 7, "a heading of an unknown kind"),
        (HEAD + "**A**\nWords.\n\n_Enter B and\n\n**B**\nMore.\n", 11, "a direction that never"),
        (HEAD + "**A**\nWords. [sic] more\n", 8, "marks left over in words"),
        (HEAD + "**A**\nWords <b>bold</b>.\n", 8, "marks left over in words"),
        (HEAD + "_Enter #A_\n", 7, "marks left over in a direction"),
        (HEAD + "**A#**\nWords.\n", 7, "marks left over in a speaker"),
        ("# T\n\n## ACT I\n\n_Enter A_\n", 5, "a direction without a scene"),
        ("## ACT I\n", 1, "no title"),
    ],
)
def test_what_no_rule_fits_is_reported_with_its_line(source: str, line: int, reason: str) -> None:
    problems = parse_play(source).problems
    assert any(p.line == line and reason in p.reason for p in problems), problems


def test_no_words_are_lost_without_a_report() -> None:
    source = HEAD + "_Exit_\n\nOrphan words.\n\n_never closed\n"
    play = parse_play(source)
    speech = play.acts[0].scenes[0].body[1]
    assert speech == Speech(UNKNOWN, (Line("Orphan words."),))
    assert {problem.reason for problem in play.problems} == {
        "words without a speaker",
        "a direction that never ends",
    }
    assert play.acts[0].scenes[0].body[2] == Direction("never closed")


def test_marks_that_would_break_the_tags_never_reach_the_words() -> None:
    play = parse_play(HEAD + "**A**\n</SPEAKER> words\n")
    assert check_tagged(to_tagged(play)) == []
    assert play.problems


def test_a_direction_after_the_last_words_belongs_to_the_scene() -> None:
    scene = parse_play(HEAD + "**A**\nGo.\n\n_Exit B_\n\nGone.\n\n_Exit_\n").acts[0].scenes[0]
    assert scene.body == (
        Speech("A", (Line("Go."), Direction("Exit B"), Line("Gone."))),
        Direction("Exit"),
    )


def test_a_given_title_wins_over_the_sources_own() -> None:
    assert parse_play(HEAD, title="Hamlet").title == "Hamlet"
    assert parse_play(HEAD).title == "T"
