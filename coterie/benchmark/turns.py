"""How sides are timed: in turns, so that whatever else the machine does meets all of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """One decoding of a batch.

    Attributes:
        first: seconds from the call to the first token of the last row.
        rest: seconds from there to the last token.
        steps: tokens of each row after the first.
        tokens: what the first row wrote.
    """

    first: float
    rest: float
    steps: int
    tokens: tuple[int, ...]

    @staticmethod
    def of(begin: float, times: Sequence[float], tokens: Sequence[int]) -> "Timing":
        """Return the timing of a decoding whose steps ended at `times`."""
        return Timing(times[0] - begin, times[-1] - times[0], len(times) - 1, tuple(tokens))


Way = Callable[[], Timing]


def in_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, list[Timing]]:
    """Time every way `rounds` times, A B C A B C …, after one call of each to warm up."""
    for way in ways.values():
        way()
    taken: dict[str, list[Timing]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return taken


def spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the smallest and the largest."""
    return statistics.median(ratios), min(ratios), max(ratios)
