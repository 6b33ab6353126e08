"""Prompt look-up: the longest match, the latest of them, and matches that go round."""

import random

import pytest

from coterie.generate.speculation import Lookup, LookupSpeculation


def nothing():
    return None, True


def draft(past, most=6, shortest=1, longest=3, tokens=6):
    return Lookup(shortest, longest, tokens).draft(past, most, nothing)


def test_the_longest_match_comes_before_a_later_one():
    assert draft([1, 2, 3, 9, 3, 8, 1, 2, 3], most=2) == [9, 3]
    assert draft([1, 2, 3, 9, 3, 8, 1, 2, 3], most=2, longest=1) == [8, 1]


def test_of_equal_matches_the_latest_is_taken():
    assert draft([5, 1, 5, 2, 5], most=1) == [2]


def test_nothing_known_is_no_guess():
    assert draft([1, 2, 3]) == []
    assert draft([]) == []
    assert draft([1]) == []
    assert draft([1, 2, 1], shortest=2) == []


def test_a_match_that_reaches_the_end_goes_round():
    assert draft([7, 7], most=4) == [7, 7, 7, 7]
    assert draft([1, 2, 1, 2], most=5) == [1, 2, 1, 2, 1]


def test_no_more_is_guessed_than_may_be():
    assert draft([1, 2, 3, 4, 1], most=2) == [2, 3]
    assert draft([1, 2, 3, 4, 1], most=9, tokens=3) == [2, 3, 4]


def test_a_growing_text_is_looked_up_as_anew():
    grown, past = Lookup(1, 3, 5), []
    for _ in range(200):
        past.append(random.randrange(4))
        assert grown.draft(past, 5, nothing) == draft(past, 5, tokens=5)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="shortest=5 is more than longest=4"):
        LookupSpeculation(shortest=5)
