"""Lines are marked as people mark them, for the reasons that people give."""

from __future__ import annotations

import random

import pytest

from coterie.foundation.errors import UserError
from coterie.language.verse.lines import words
from coterie.language.verse.scansion import automaton, cheapest, scan
from coterie.language.verse.signatures import options

_SONNETS = [
    "Shall I compare thee to a summer's day?",
    "When I do count the clock that tells the time,",
    "Rough winds do shake the darling buds of May,",
    "So long as men can breathe, or eyes can see,",
    "My glass shall not persuade me I am old,",
    "And summer's lease hath all too short a date:",
]
_PROSE = [
    "the committee shall consider applications",
    "information is available on the",
    "of the manufacturers of electrical",
]


@pytest.mark.parametrize("line", _SONNETS)
def test_regular_lines_are_regular(line):
    found = scan(line)
    assert found.pattern == "wswswswsws"
    assert found.metrical


def test_the_first_foot_may_be_turned_round():
    found = scan("Mercy for praise to be forgiven for fame")
    assert found.pattern.startswith("swws")
    assert ("inverted foot 1", 0) in [(reason.name, reason.word) for reason in found.reasons]


def test_reasons_name_licences_and_their_words():
    found = scan("That flatt'ring glass, the orient of her nation,")
    assert found.pattern == "wswswswswsw"
    told = {(found.words[reason.word].text, reason.name) for reason in found.reasons}
    assert {("orient", "elision"), ("nation", "feminine ending")} <= told
    into = scan("Wilt thou, th' invention of the age, admit")
    assert into.pattern == "wswswswsws"
    merged = scan("Seek thou the invention of the summer's day")
    assert merged.pattern == "wswwswswsws" or merged.pattern == "swwwswswsws"
    assert "synaloepha" in [reason.name for reason in merged.reasons]


def test_lines_of_another_length_do_not_fit():
    found = scan("Doth follow night, who like a fiend")
    assert found.cost == float("inf")
    assert not found.metrical
    assert not found.said
    assert scan("Doth follow night, who like a fiend", "iambic-tetrameter").metrical
    assert not scan("").metrical


def test_prose_costs_more_than_verse():
    verse = [scan(line).cost for line in _SONNETS]
    assert min(scan(line).cost for line in _PROSE) > max(verse)


@pytest.mark.parametrize(
    ("metre", "line", "pattern"),
    [
        ("trochaic tetrameter", "Tyger, Tyger burning bright,", "swswsws"),
        ("trochaic_tetrameter", "By the shores of Gitche Gumee", "swswswsw"),
        ("alexandrine", "That like a wounded snake drags its slow length along", "wswswswswsws"),
        ("anapestic-tetrameter", "Not a creature was stirring, not even a mouse", "wwswwswwswws"),
    ],
)
def test_other_metres_are_data(metre, line, pattern):
    assert scan(line, metre).pattern == pattern


def test_ballads_and_haiku_ask_for_unlike_lines():
    ballad = ["It is an ancient Mariner,", "And he stoppeth one of three."]
    assert [len(scan(line, "ballad", at).pattern) for at, line in enumerate(ballad)] == [8, 7]
    assert scan("An old silent pond", "haiku", 0).metrical
    assert not scan("An old silent pond", "haiku", 1).metrical
    assert scan("A frog jumps into the pond", "haiku", 1).metrical


def test_an_unknown_metre_names_the_nearest():
    with pytest.raises(UserError, match="iambic-pentameter"):
        scan("A line", "iambic-pentametre")


def test_the_automaton_goes_word_by_word_to_the_same_cost():
    machine = automaton("wswswswsws", True)
    for line in _SONNETS:
        states = {machine.start: 0.0}
        for word in words(line):
            reached: dict = {}
            for state, cost in states.items():
                for move in machine.moves(state, options(word.key), word.after_break):
                    new = cost + move.cost
                    reached[move.state] = min(new, reached.get(move.state, new))
            states = reached
        least = min(cost for state, cost in states.items() if machine.accepts(state))
        assert cheapest(words(line), machine)[0] <= least + 1e-9


def test_shuffled_lines_cost_more():
    randomness = random.Random(0)
    more = 0
    for line in _SONNETS:
        for _ in range(5):
            mixed = line.rstrip(",:?.").split()
            randomness.shuffle(mixed)
            more += scan(" ".join(mixed)).cost > scan(line).cost
    assert more >= 27
