"""`coterie verse`: marked lines with reasons, and figures, for people and as JSON."""

from __future__ import annotations

import json

import pytest

from coterie.cli.app import run as coterie

_LINES = """\
When I do count the clock that tells the time,
Mercy for praise to be forgiven for fame

This has far too many syllables in it for any metre that is here
"""


@pytest.fixture
def poem(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text(_LINES)
    return str(path)


def test_scan_marks_lines_and_says_why(poem, capsys):
    assert coterie(["verse", "scan", poem]) == 0
    said = capsys.readouterr()
    marks, line = said.out.splitlines()[:2]
    assert line.endswith(_LINES.splitlines()[0])
    assert [mark for mark in marks if mark != " "] == list("x/x/x/x/x/")
    assert all(line[at] in "aeiouI" for at, mark in enumerate(marks) if mark != " ")
    assert "inverted foot 1 (Mercy)" in said.out
    assert "does not fit" in said.out
    assert "2 of 3 lines (67%)" in said.out
    assert f"Next: coterie verse score {poem}" in said.err


def test_scan_as_json_holds_every_line(poem, capsys):
    assert coterie(["verse", "scan", poem, "--lines", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["line"] for each in found["lines"]] == [1, 2, 4]
    assert found["lines"][0]["pattern"] == "ws" * 5
    assert found["lines"][0]["words"][0] == {
        "word": "When", "marks": "w", "signature": "Q", "licences": [],
    }  # fmt: skip
    assert found["lines"][2]["cost"] is None
    assert found["metrical"] == 2


def test_score_tells_all_areas(poem, tmp_path, capsys):
    assert coterie(["verse", "score", poem, "--training", poem, "--form", "AA"]) == 0
    said = capsys.readouterr().out
    for word in ("Metre", "Rhyme", "Words", "Copying", "metrical", "distinct 2", "longest run"):
        assert word in said
    assert "Structure" not in said
    play = tmp_path / "play.txt"
    play.write_text("<PLAY>P</PLAY>\nWords of nobody.\n")
    assert coterie(["verse", "score", str(play), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["structure"]["well_formed"] is False
    assert "without a speaker" in found["structure"]["problems"][0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scan", "none.txt"], "none.txt"),
        (["scan", "POEM", "--metre", "iambs"], "iambic"),
        (["score", "POEM", "--form", "sonet"], "sonnet"),
        (["scan", "EMPTY"], "no line"),
    ],
)
def test_what_cannot_be_scanned_is_told(words, told, poem, tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.write_text("<POEM>Nothing</POEM>\n")
    names = {"POEM": poem, "EMPTY": str(empty)}
    assert coterie(["verse", *[names.get(word, word) for word in words]]) == 2
    assert told in capsys.readouterr().err


def test_a_run_is_written_from_and_scored(tiny_run, capsys):
    words = ["verse", "score", "tiny", "It was", "max_tokens=5", "--samples", "2", "--form", "AA"]
    assert coterie([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == "tiny"
    assert found["written"]["texts"] == 2
    assert found["copying"]["longest_run"] >= 1
    assert coterie(words) == 0
    assert "Written" in capsys.readouterr().out
    assert coterie(["verse", "score", str(tiny_run), "max_tokens=5"]) == 2
    assert "is a text" in capsys.readouterr().err


def test_a_poem_is_drawn(poem, tmp_path, capsys):
    out = tmp_path / "poem.svg"
    assert coterie(["verse", "picture", poem, "--out", str(out), "--form", "AA", "--dark"]) == 0
    assert out.read_text().startswith("<?xml")
    assert "Drawn:" in capsys.readouterr().out
