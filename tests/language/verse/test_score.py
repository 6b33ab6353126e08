"""Figures of a text: shares of lines, rhymes by form, words, and what was copied."""

from __future__ import annotations

import pytest

from coterie.language.verse.score import scan_text, score, stanzas

_TEXT = """\
<POEM>Two</POEM>
<PART>I</PART>
When I do count the clock that tells the time,
And see the brave day sunk in hideous night;
When I behold the violet past prime,
And sable curls all silver'd o'er with white;

Information is available on request
from the committee of manufacturers.
"""


def test_stanzas_know_their_lines_and_leave_out_headings():
    found = stanzas(_TEXT)
    assert [(each.first, len(each.lines)) for each in found] == [(3, 4), (8, 2)]
    assert [number for number, _, _ in scan_text(_TEXT)] == [3, 4, 5, 6, 8, 9]
    play = "<SPEAKER>HAMLET</SPEAKER>\n<STAGE>Aside</STAGE> A little more than kin,\n"
    assert stanzas(play)[0].lines == ("A little more than kin,",)
    assert not stanzas("<STAGE>Enter GHOST</STAGE>\n\n")


def test_a_quatrain_scores_as_verse():
    found = score(_TEXT)
    assert found["metre"]["lines"] == 6
    assert found["metre"]["metrical"] == pytest.approx(4 / 6, abs=1e-4)
    assert found["rhyme"]["schemes"] == ["ABAB", "AB"]
    assert found["rhyme"]["pairs"] == found["rhyme"]["perfect"] == 2
    assert found["rhyme"]["rhyming"] == 1
    assert found["words"]["distinct_2"] == pytest.approx(42 / 43, abs=1e-3)
    assert found["words"]["archaic"] == pytest.approx(2 / 47, abs=0.01)


def test_a_form_says_which_lines_should_rhyme():
    lines = "\n".join(_TEXT.splitlines()[2:6])
    assert score(lines, form="ABAB")["rhyme"]["rhyming"] == 1
    assert score(lines, form="couplets")["rhyme"]["rhyming"] == 0
    assert score(lines, form="enclosed")["rhyme"]["none"] == 2


def test_the_longest_run_copied_is_found():
    training = "x y When I behold the violet past prime z and sable curls " + "w " * 50
    found = score(_TEXT, training=training)["copying"]
    assert found == {"longest_run": 7, "words": "when i behold the violet past prime"}
    assert score(_TEXT, training="nothing of it")["copying"]["longest_run"] == 1
    assert score(_TEXT, training=_TEXT[40:])["copying"]["longest_run"] > 40


def test_nothing_scores_as_nothing():
    found = score("")
    assert found["metre"]["lines"] == 0
    assert found["metre"]["metrical"] is None
    assert found["rhyme"]["rhyming"] is None


def test_more_rhymes_than_letters_of_the_alphabet_are_told_apart():
    ends = ["cat", "sea", "dog", "sun", "ship", "red", "moon", "fire", "gold", "stone", "hand"] * 4
    lines = [f"the {end} {number}" for number, end in enumerate(ends)]
    found = score("\n".join(lines))
    assert found["rhyme"]["rhyming"] == 1.0, "each pair of equal letters does rhyme"
