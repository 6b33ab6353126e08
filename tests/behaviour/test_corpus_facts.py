"""The table beside `scripts/build_corpus.py` notices a scene, a line or a title too few or many."""

import runpy
from pathlib import Path

import pytest

from coterie.foundation.errors import DataError
from coterie.language.drama.layouts import roman

SCRIPTS = Path(__file__).parents[2] / "scripts"
FACTS = runpy.run_path(str(SCRIPTS / "corpus_facts.py"))
PLAYS, POEMS, check_facts = FACTS["PLAYS"], FACTS["POEMS"], FACTS["check_facts"]
MENDED = runpy.run_path(str(SCRIPTS / "corpus_corrections.py"))
CORRECTIONS, correct = MENDED["CORRECTIONS"], MENDED["correct"]


def _play(name: str) -> str:
    """A skeleton of a play that agrees with the table."""
    facts = PLAYS[name]
    lines = [f"<PLAY>{facts.title}</PLAY>"]
    lines += ["<SCENE>PROLOGUE</SCENE>"] * facts.prologues
    if facts.induction:
        lines.append("<ACT>INDUCTION</ACT>")
        lines += [f"<SCENE>{roman(n + 1)}</SCENE>" for n in range(facts.induction)]
    for act, count in enumerate(facts.scenes, start=1):
        lines.append(f"<ACT>{roman(act)}</ACT>")
        lines += [f"<SCENE>{roman(n + 1)}. A place.</SCENE>" for n in range(count)]
    lines += ["<SCENE>EPILOGUE</SCENE>"] * facts.epilogues
    return "\n".join(lines) + "\n"


def _sonnets() -> str:
    lengths = {99: 15, 126: 12}
    parts = [f"<PART>{roman(n)}</PART>\n" + "A line\n" * lengths.get(n, 14) for n in range(1, 155)]
    return "<POEM>The Sonnets</POEM>\n" + "".join(parts)


def test_the_table_has_38_plays_in_five_acts() -> None:
    assert len(PLAYS) == 38
    assert {len(facts.scenes) for facts in PLAYS.values()} == {5}
    assert len(POEMS) == 5


@pytest.mark.parametrize("name", sorted(PLAYS))
def test_a_scene_more_or_less_is_noticed(name: str) -> None:
    text = _play(name)
    assert check_facts(name, text) == []
    last = text.rindex("<SCENE>")
    assert check_facts(name, text[:last])
    assert check_facts(name, text.replace("<ACT>III</ACT>", "<ACT>III</ACT>\n<SCENE>IX</SCENE>"))
    assert check_facts(name, text.replace("<PLAY>", "<PLAY>Not ", 1))


def test_a_sonnet_or_a_line_more_or_less_is_noticed() -> None:
    text = _sonnets()
    assert check_facts("sonnets", text) == []
    assert check_facts("sonnets", text.replace("<PART>CXXVI</PART>", "<PART>CXXVII</PART>"))
    assert check_facts("sonnets", text.replace("<PART>C</PART>\nA line", "<PART>C</PART>"))
    swapped = text.replace("<PART>II</PART>\nA line\n", "<PART>II</PART>\n") + "A line\n"
    assert len(check_facts("sonnets", swapped)) == 2  # the sum is right, two sonnets are not


def test_an_unknown_document_is_named() -> None:
    assert check_facts("cardenio", "") == ["cardenio: nothing is known about this document"]


def test_a_correction_must_fit_exactly() -> None:
    assert correct("king-lear", "**LEAR**  \nOf all") == "**KING LEAR**  \nOf all"
    with pytest.raises(DataError, match="fits 0 places, not 1"):
        correct("king-lear", "another edition")
    with pytest.raises(DataError, match="fits 2 places, not 1"):
        correct("king-lear", "**LEAR** **LEAR**")
    assert correct("macbeth", "nothing to mend") == "nothing to mend"


def test_corrections_are_for_known_documents() -> None:
    assert set(CORRECTIONS) <= set(PLAYS) | set(POEMS)
