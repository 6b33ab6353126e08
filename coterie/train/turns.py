"""Timing in turns, so that whatever else the machine does meets every side alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Clock = Callable[[], float]


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    seconds: float,
    clock: Clock = time.perf_counter,
    *,
    least: int = 1,
    most: int = 25,
) -> dict[str, list[float]]:
    """Time ways A B A B …, after one call of each that makes things ready.

    Args:
        ways: what is timed, by name; each returns when its work is done.
        seconds: after about so many no further turn begins, the first calls included.
        clock: seconds since some moment.
        least: turns to take however long they are.
        most: turns to take however short they are.

    Returns:
        The seconds of each call, one a turn.
    """
    end = clock() + seconds
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(most):
        if turn >= least and clock() >= end:
            break
        for name, way in ways.items():
            begin = clock()
            way()
            taken[name].append(clock() - begin)
    return taken


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return how many times as fast the second of two ways was: the median over the turns."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))
