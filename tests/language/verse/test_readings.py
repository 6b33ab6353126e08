"""Every word has readings, and those of archaic words are the right ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from coterie.language.verse.lines import key_of, words
from coterie.language.verse.phones import stresses, syllables
from coterie.language.verse.readings import readings

_CHECKED = [
    line.split(" ", 1)
    for line in Path(__file__).with_name("checked_words.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]


def test_words_that_a_person_checked_have_the_readings_they_should():
    assert len(_CHECKED) == 200
    wrong = {word: got for word, phones in _CHECKED
             if (got := " ".join(readings(word)[0].phones)) != phones}  # fmt: skip
    assert not wrong


@pytest.mark.parametrize(
    ("word", "stress", "licence"),
    [
        ("heaven", "1-", "elision"),
        ("power", "1-", "elision"),
        ("flattering", "1-0", "elision"),
        ("spirit", "1-", "elision"),
        ("glorious", "1-0", "elision"),
        ("feelest", "1-", "contraction"),
        ("nation", "100", "expansion"),
        ("patience", "100", "expansion"),
        ("fire", "10", None),
        ("beloved", "010", None),
        ("astonished", "0100", "sounded -ed"),
        ("complete", "10", "shifted stress"),
        ("record", "01", None),
        ("against", "-1", "elision"),
    ],
)
def test_licences_give_further_readings_by_name(word, stress, licence):
    found = {each.stresses: each.licences for each in reversed(readings(word))}
    assert stress in found
    assert found[stress] == ((licence,) if licence else ())


@pytest.mark.parametrize(
    ("word", "stress"),
    [
        ("mak'st", "1"),
        ("stopp'd", "1"),
        ("lov'd", "1"),
        ("wanted", "10"),
        ("wand'ring", "1-0"),
        ("heav'nly", "1-0"),
        ("o'erlook", "21"),
        ("'gainst", "1"),
        ("th'", ""),
        ("beauty's", "10"),
        ("mistress'", "10"),
        ("self-substantial", "2010"),
        ("thou'lt", "1"),
        ("'hues'", "1"),
    ],
)
def test_forms_are_read_from_what_they_are_forms_of(word, stress):
    assert readings(word)[0].stresses == stress


@given(some.text(min_size=1, max_size=30))
def test_whatever_is_cut_as_a_word_has_a_reading(text):
    for word in words(text):
        found = readings(word.key)
        assert found
        assert all(len(each.stresses) >= syllables(each.phones) for each in found)


def test_lines_are_cut_at_marks_and_not_at_apostrophes():
    cut = words("'Tis th' orient,--o’er-green my bad: “so”")
    assert [word.key for word in cut] == ["'tis", "th'", "orient", "o'er-green", "my", "bad", "so"]
    assert [word.after_break for word in cut] == [False, False, False, True, False, False, True]
    assert key_of("Éclaircí") == "eclairci"


def test_an_elided_vowel_is_no_syllable():
    phones = ("HH", "EH1", "V", "AH-", "N")
    assert stresses(phones) == "1-"
    assert syllables(phones) == 1
