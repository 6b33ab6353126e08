"""The table of known facts notices a scene, a line or a title too few or too many."""

import ast
import sys
from pathlib import Path

import pytest

import coterie.language
from coterie.foundation.errors import DataError
from coterie.language.drama.corrections import CORRECTIONS, correct
from coterie.language.drama.facts import PLAYS, POEMS, check_facts, roman


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


@pytest.mark.parametrize(
    ("number", "numeral"), [(1, "I"), (4, "IV"), (99, "XCIX"), (126, "CXXVI"), (154, "CLIV")]
)
def test_roman_numerals(number: int, numeral: str) -> None:
    assert roman(number) == numeral


def test_a_correction_must_fit_exactly() -> None:
    assert correct("king-lear", "**LEAR**  \nOf all") == "**KING LEAR**  \nOf all"
    with pytest.raises(DataError, match="fits 0 places, not 1"):
        correct("king-lear", "another edition")
    with pytest.raises(DataError, match="fits 2 places, not 1"):
        correct("king-lear", "**LEAR** **LEAR**")
    assert correct("macbeth", "nothing to mend") == "nothing to mend"


def test_corrections_are_for_known_documents() -> None:
    assert set(CORRECTIONS) <= set(PLAYS) | set(POEMS)


def test_language_needs_nothing_but_the_standard_library() -> None:
    for path in Path(next(iter(coterie.language.__path__))).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top == "coterie" or top in sys.stdlib_module_names, (path, name)
