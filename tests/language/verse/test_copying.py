"""The longest run copied, against a search that tries everything."""

import random

from coterie.language.verse.copying import Automaton, keys_of, longest_run


def _by_trying(written: list[str], other: list[str]) -> int:
    runs = {
        tuple(other[start:end])
        for start in range(len(other))
        for end in range(start + 1, len(other) + 1)
    }
    return max(
        (
            end - start
            for start in range(len(written))
            for end in range(start + 1, len(written) + 1)
            if tuple(written[start:end]) in runs
        ),
        default=0,
    )


def test_random_texts_share_what_a_search_finds():
    drawn = random.Random(4)
    for _ in range(300):
        written, other = (
            [drawn.choice("abc") for _ in range(drawn.randrange(1, 14))] for _ in range(2)
        )
        length, end = Automaton(written).longest(other)
        assert length == _by_trying(written, other), (written, other)
        run = longest_run(written, [" ".join(other)])
        assert run == written[end - length + 1 : end + 1] if length else run == []
        assert " ".join(run) in " ".join(other)


def test_runs_do_not_go_on_from_text_to_text():
    written = list(keys_of("When I do count the Clock, that tells"))
    assert longest_run(written, ["when i", "do count the clock", "x"]) == written[2:6]
    assert longest_run(written, []) == []
    assert longest_run([], ["when"]) == []
