"""Typography comes down to a small alphabet without losing a character silently."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from coterie.language.drama.typography import normalise, tidy_line


def test_quotes_dashes_ellipses_accents_and_ligatures() -> None:
    assert normalise("“Æneas’ café”—he … said – no") == '"AEneas\' cafe"--he ... said--no'


def test_line_breaks_stay_and_become_newlines() -> None:
    assert normalise("a\r\nb\rc\n\n  d") == "a\nb\nc\n\n  d"


def test_a_character_without_a_plain_form_stays() -> None:
    assert normalise("λ 漢 한 й \ufe58") == "λ 漢 한 й \ufe58"


@settings(deadline=None)
@example("\u1fef \u2025 q\u0301 \u00b4")
@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=126, min_codepoint=32, exclude_characters="`")))
def test_plain_text_is_left_alone(text: str) -> None:
    assert normalise(text) == text


def test_lines_are_tidied() -> None:
    assert tidy_line("  Heralds,  & c. sing") == "Heralds, &c. sing"
    assert tidy_line("Mayor, & c") == "Mayor, &c."
    assert tidy_line("a cat & cows") == "a cat & cows"
    assert tidy_line("Bottom's house ? is he") == "Bottom's house? is he"
