"""Stop texts never leak, not even in part, however the stream is cut into pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coterie.generate.stopping import StopScanner


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool, list[str]]:
    scanner = StopScanner(stops)
    shown = [scanner.push(piece) for piece in pieces]
    return "".join(shown) + scanner.finish(), scanner.stopped, shown


def test_a_stop_cut_into_pieces_is_held_back():
    text, stopped, shown = run(["To be", " E", "N", "D and more"], ["END"])
    assert (text, stopped) == ("To be ", True)
    assert shown == ["To be", " ", "", ""]


def test_what_turns_out_harmless_is_shown():
    text, stopped, shown = run(["a E", "N", "Ough"], ["END"])
    assert (text, stopped) == ("a ENOugh", False)
    assert shown == ["a ", "", "ENOugh"]


def test_held_text_comes_out_at_the_end():
    assert run(["well EN"], ["END"]) == ("well EN", False, ["well "])


def test_the_earliest_of_several_stops_counts():
    assert run(["one two three"], ["three", "two"])[0] == "one "


def test_a_beginning_inside_a_beginning():
    assert run(["aa", "ab", "c"], ["aab"])[0] == "a"


def test_without_stops_nothing_is_held():
    assert run(["x", "y"], [])[2] == ["x", "y"]


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
       st.lists(st.integers(0, 20), max_size=6))  # fmt: skip
def test_any_cutting_gives_the_text_up_to_the_first_stop(text, stops, cuts):
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    # The oracle reads character by character: the stop that is complete first ends the text.
    expected, found = text, False
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            expected, found = text[: end - max(map(len, complete))], True
            break
    shown, stopped, _ = run(list(text), stops)
    assert (shown, stopped) == (expected, found)
    if len(stops) == 1:  # with several, a longer piece may complete more than one at once
        assert run(pieces, stops)[:2] == (expected, found)
