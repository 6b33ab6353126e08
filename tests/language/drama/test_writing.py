"""Whatever line is chosen each time, the text is well-formed; the stage is kept account of."""

import random
import re

import pytest

from coterie.language.drama.cleaning import clean_text
from coterie.language.drama.tags import check_tagged
from coterie.language.drama.writing import Free, Name, Place, Shape, begin

CAST = ("HAMLET", "HORATIO", "GHOST")
WORDS = ("To be,", "or not", "a", "Ay.", "'Tis!")


def write(place: Place, most: int = 60) -> tuple[list[str], Place]:
    """Return lines chosen at random until the text may end and does, and the place after them."""
    lines = []
    while True:
        ways = place.next_lines()
        assert ways or place.may_end, lines
        if place.may_end and (not ways or len(lines) > most or random.random() < 0.2):
            return lines, place
        line = ""
        for part in random.choice(ways):
            if isinstance(part, Name):
                count = random.randint(1, 3) if part.several else 1
                chosen = [random.choice(part.of) for _ in range(count)]
                line += " and ".join(filter(None, [", ".join(chosen[:-1]), chosen[-1]]))
            else:
                line += random.choice(WORDS) if isinstance(part, Free) else part
        assert line.endswith("\n")
        assert line.count("\n") == 1
        lines.append(line[:-1])
        place = place.after(lines[-1])


@pytest.mark.parametrize("cast", [None, CAST])
def test_every_choice_of_lines_is_a_well_formed_document(cast) -> None:
    shape = Shape(acts=2, scenes=2, speeches=(2, 4), lines=(1, 3), cast=cast)
    for _ in range(200):
        lines, _ = write(Place(shape), most=0)
        text = "\n".join(lines) + "\n"
        assert check_tagged(text) == []
        assert clean_text(text).text == text, "our own reader keeps it as it is"
        assert lines[0].startswith("<PLAY>"), "no poem has acts"
        assert [line for line in lines if "<ACT>" in line] == ["<ACT>I</ACT>", "<ACT>II</ACT>"]
        for act in text.split("<ACT>")[1:]:
            scenes = act.split("<SCENE>")[1:]
            headed = [scene for scene in scenes if not scene.startswith("PROLOGUE")]
            assert [scene.split(".")[0] for scene in headed] == ["I", "II"]
            for scene in scenes:
                speeches = re.split("<SPEAKER>.*</SPEAKER>\n", scene)[1:]
                assert 2 <= len(speeches) <= 4
                for speech in speeches:
                    words = [line for line in speech.split("\n") if re.sub("<.*>", "", line)]
                    assert 1 <= len(words) <= 3


def test_only_who_is_on_the_stage_speaks() -> None:
    for _ in range(100):
        lines, _ = write(Place(Shape(cast=CAST)))
        here: set[str] = set()
        for line in lines:
            named = {name for name in CAST if name in line}
            if "Enter" in line:
                here |= named
            elif "Exeunt" in line or "<SCENE>" in line or "<ACT>" in line:
                here = set()
            elif "Exit" in line:
                here -= named
            elif "<SPEAKER>" in line:
                assert named <= here, lines
                assert named


def test_a_text_goes_on_from_where_it_has_begun() -> None:
    place, rest = begin("<SPEAKER>HAMLET</SPEAKER>\nTo be, or", Shape(lines=(2, 2)))
    assert (place.scene, place.speaker, rest) == (1, "HAMLET", "To be, or")
    place = place.after("To be, or not")
    assert not place.may_end
    assert place.after("to be").may_end
    place, _ = begin("<ACT>III</ACT>\n<SCENE>IV. A room.</SCENE>\n", Shape())
    assert (place.act, place.scene) == (3, 4)
    place = place.after("<SPEAKER>A</SPEAKER>").after("Words.")
    ways = ["".join(p for p in way if isinstance(p, str)) for way in place.next_lines()]
    assert "<SCENE>V. </SCENE>\n" in ways
    assert "<ACT>IV</ACT>\n" in ways
    assert begin("Words alone,\nand more\n", Shape())[0].may_end
    assert begin("<SPEAKER>A</SPEAKER>\nTo be\n\n", Shape())[0].last == "blank"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<SPEAKER>A</SPEAKER>\n<SPEAKER>B\n", "line 2: a tag that is unknown, open"),
        ("<PLAY>T</PLAY>\nWords\n", "line 2: words without a speaker"),
        ("<ACT>I</ACT>\n\n\n", "line 2: a stanza mark"),
    ],
)
def test_a_beginning_that_breaks_the_grammar_is_refused_by_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        begin(text, Shape())
