"""The grammar of tagged text refuses every kind of breach, and plain text has no tags."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.language.drama import DRAMA_TAGS, check_tagged, plain, to_tagged
from coterie.language.drama.structure import Act, Direction, Line, Play, Scene, Speech, StanzaBreak

PLAY = """\
<PLAY>Hamlet</PLAY>
<ACT>I</ACT>
<SCENE>I. Elsinore.</SCENE>
<STAGE>Enter HAMLET</STAGE>
<SPEAKER>HAMLET</SPEAKER>
<STAGE>Aside</STAGE> A little more than kin.
To be,

or not.
<STAGE>Exit</STAGE>
"""
POEM = "<POEM>Sonnets</POEM>\n<PART>I</PART>\nFrom fairest creatures\n\nWe desire\n"


def test_sound_texts_have_no_problems() -> None:
    assert check_tagged(PLAY) == []
    assert check_tagged(POEM) == []


def test_tags_come_in_pairs_and_are_distinct() -> None:
    assert len(DRAMA_TAGS) == len(set(DRAMA_TAGS)) == 14
    opening = [tag for tag in DRAMA_TAGS if not tag.startswith("</")]
    assert {"</" + tag[1:] for tag in opening} == set(DRAMA_TAGS) - set(opening)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<PLAY>Hamlet</PLAY>\n", "", "first line"),
        ("</SPEAKER>", "", "unknown, open, nested"),
        ("<SPEAKER>HAMLET</SPEAKER>\n", "", "without a speaker"),
        ("<ACT>I</ACT>\n", "", "before the first <ACT>"),
        ("<SCENE>I. Elsinore.</SCENE>\n", "", "outside a scene"),
        ("Aside</STAGE>", "<SPEAKER>A</SPEAKER></STAGE>", "unknown, open, nested"),
        ("<STAGE>Exit</STAGE>", "<EXIT>", "unknown, open, nested"),
        ("To be,", "To <STAGE>Aside</STAGE> be,", "does not open the line"),
        ("Enter HAMLET", " ", "<STAGE> is empty"),
        (">HAMLET<", "><", "<SPEAKER> is empty"),
        ("To be,\n\n", "To be,\n\n\n", "stanza mark"),
        ("<SPEAKER>HAMLET</SPEAKER>\n", "<SPEAKER>HAMLET</SPEAKER>\n\n", "stanza mark"),
        ("To be,", "  To be,", "padding"),
        ("To be,", "To\x07be,", "control character"),
        ("<STAGE>Exit</STAGE>\n", "<PLAY>Hamlet</PLAY>\n", "only be the first line"),
        ("<STAGE>Exit</STAGE>\n", "<PART>I</PART>\n", "does not belong"),
        ("<STAGE>Exit</STAGE>\n", "Exit", "end with a newline"),
    ],
)
def test_every_breach_is_found(old: str, new: str, problem: str) -> None:
    assert PLAY.count(old) == 1
    problems = check_tagged(PLAY.replace(old, new))
    assert any(problem in found for found in problems), problems


def test_a_poem_has_no_scenes() -> None:
    assert check_tagged(POEM.replace("<PART>I</PART>", "<SCENE>I</SCENE>"))
    assert check_tagged(POEM.replace("We desire", "<STAGE>Exit</STAGE>"))


WORDS = st.text("abcdefgh ,.'", min_size=1).map(str.strip).filter(bool)
ELEMENT = st.one_of(
    WORDS.map(Line), st.builds(Direction, WORDS, st.booleans()), st.just(StanzaBreak())
)


def _breaks_between_lines(body: list[Line | Direction | StanzaBreak]) -> bool:
    spoken = [None, *body, None]
    return all(
        not isinstance(here, StanzaBreak) or (isinstance(before, Line) and isinstance(after, Line))
        for before, here, after in zip(spoken, spoken[1:], spoken[2:], strict=False)
    )


@settings(deadline=None)
@given(st.lists(ELEMENT, max_size=8).filter(_breaks_between_lines), WORDS)
def test_whatever_a_speech_holds_its_tagged_text_is_sound(
    body: list[Line | Direction | StanzaBreak], speaker: str
) -> None:
    scene = Scene("I", "", (Speech(speaker, tuple(body)), Direction("Exit")))
    text = to_tagged(Play("T", (Act("I", (scene,)),)))
    assert check_tagged(text) == []
    for element in body:
        if not isinstance(element, StanzaBreak):
            assert element.text in text


def test_plain_text_reads_like_a_printed_play() -> None:
    assert plain(PLAY) == (
        "HAMLET\n\nACT I\n\nSCENE I. Elsinore.\n\n[Enter HAMLET]\n\nHAMLET:\n"
        "[Aside] A little more than kin.\nTo be,\n\nor not.\n[Exit]\n"
    )
    assert plain(POEM) == "SONNETS\n\nI\n\nFrom fairest creatures\n\nWe desire\n"


@settings(deadline=None)
@given(st.lists(st.sampled_from([*DRAMA_TAGS, "word", " ", "\n", "<ST", "</"])).map("".join))
def test_plain_text_never_shows_a_whole_tag(text: str) -> None:
    shown = plain(text)
    assert not any(tag in shown for tag in DRAMA_TAGS)
    assert shown.count("word") == text.count("word")
