"""Sides are timed in turns, and no longer than there is time for."""

from __future__ import annotations

from coterie.train.turns import in_turns, ratio


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self):
        self.now, self.done = 0.0, []

    def __call__(self):
        return self.now

    def work(self, name, *seconds):
        """Return work that takes so long at each of its calls, the last value at all others."""
        left = list(seconds)

        def way():
            self.done.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return way


def test_the_first_call_of_each_is_not_counted_and_the_others_take_turns():
    clock = Clock()
    taken = in_turns({"a": clock.work("a", 9, 2), "b": clock.work("b", 5, 1)}, 20, clock)
    assert "".join(clock.done) == "ababab"
    assert taken == {"a": [2, 2], "b": [1, 1]}
    assert ratio(taken["a"], taken["b"]) == 2


def test_a_slow_way_is_timed_at_least_once_and_a_fast_one_not_for_ever():
    clock = Clock()
    assert in_turns({"a": clock.work("a", 50)}, 1, clock) == {"a": [50]}
    assert len(in_turns({"b": clock.work("b", 0.0)}, 1, clock, most=7)["b"]) == 7


def test_a_ratio_is_of_pairs_and_not_of_medians():
    assert ratio([2, 20, 3], [1, 10, 1]) == 2
