"""What a line in the making may go on with: the automaton of a metre over classes of words.

For every state of a line and every class of words it is known what the cheapest line costs that
goes on with such a word and ends as it must. So each word that is admitted leaves a line that can
be finished within its budget, and there are no dead ends.
"""

import functools
from typing import NamedTuple

import numpy as np

from coterie.generate.constraints.lexicon import Lexicon
from coterie.language.verse.scansion import State, automaton

COMMON = 60  # classes that are counted on to fill a line: 97 % of all words

BINS = np.arange(-3, 8, 0.25)  # of what a line may still cost, in nats; the first stands for less


def _bins(costs: np.ndarray) -> np.ndarray:
    """Return the nearest bins."""
    return np.clip((costs - BINS[0]) / 0.25 + 0.5, 0, len(BINS) - 1).astype(int)


class Line(NamedTuple):
    """Where a line stands: what each state that it may be in has cost, and if a pause is here."""

    states: tuple[tuple[State, float], ...]
    pause: bool = False


class _Ways(NamedTuple):
    """Where classes of words lead from a state, way after way, those of a class together.

    Attributes:
        kinds: the classes that have a way, [P].
        starts: of each its first way, [P].
        kind: of each way, [E].
        costs: in nats, [E].
        after: numbers of states, [E].
        ends: whether the line may end there, [E].
    """

    kinds: np.ndarray
    starts: np.ndarray
    kind: np.ndarray
    costs: np.ndarray
    after: np.ndarray
    ends: np.ndarray


class Aim(NamedTuple):
    """What a line is to reach.

    Attributes:
        most: what it may cost.
        floors: of each state what it costs at least to end in one of the classes asked for, [S].
        hope: of each state and bin how likely the line ends so, [S, B].
    """

    most: float
    floors: np.ndarray
    hope: np.ndarray


class Metrical:
    """A metre's pattern over the classes of a lexicon.

    Args:
        lexicon: of the words.
        pattern: of weak and strong positions, or a number of syllables.
        feminine: whether a weak syllable follows a last strong position; else none does.
        licensed: whether words may be elided or stretched, else they are said as they stand.
    """

    def __init__(self, lexicon: Lexicon, pattern: str, feminine: bool, licensed: bool) -> None:
        self.lexicon, self.machine = lexicon, automaton(pattern, feminine)
        self._said = lexicon.classes if licensed else lexicon.plain
        self._least = self.machine.end + self.machine.extra
        self._states: list[State] = []
        self._numbers: dict[State, int] = {}
        self._known: dict[tuple[int, bool], _Ways] = {}
        self._number(self.machine.start)

    @property
    def start(self) -> Line:
        """A line before its first word."""
        return Line(((self.machine.start, 0.0),))

    def cheapest(self, finals: np.ndarray) -> float:
        """Return what the cheapest line costs that ends in one of some classes, bool [K]."""
        return float(self._tables[0][0, finals].min(initial=np.inf))

    def aim(self, most: float, shares: np.ndarray) -> Aim:
        """Return what lines are to reach.

        Args:
            most: what a line may cost.
            shares: of each class how much of a text is words of it that may end the line, [K].
        """
        floors, hope = self._tables
        few = np.flatnonzero(shares)
        some = (shares[few], hope[few]) if 4 * len(few) < len(shares) else (shares, hope)
        return Aim(
            most, floors[:, few].min(1), np.tensordot(some[0].astype(np.float32), some[1], 1)
        )

    def after(self, line: Line, kind: int, aim: Aim) -> Line:
        """Return the line after a word of a class, in the states from which it can be finished."""
        reached: dict[State, float] = {}
        for state, cost in line.states:
            for move in self.machine.moves(state, self._said[kind], line.pause):
                total = round(cost + move.cost, 6)
                rest = aim.floors[self._number(move.state)]
                if total + rest <= aim.most + 1e-6 and total < reached.get(move.state, np.inf):
                    reached[move.state] = total
        return Line(tuple(sorted(reached.items())))

    def look(self, line: Line, aim: Aim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what may stand next.

        Returns:
            Which classes may stand next with others to follow, bool [K], which may end the line,
            bool [K], and how likely the line ends well after a word of each, [K].
        """
        count = len(self.lexicon.classes)
        going_on, ending = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        promise = np.zeros(count, dtype=np.float32)
        for state, cost in line.states:
            ways = self._ways(self._number(state), line.pause)
            if len(ways.kinds):
                rest = aim.most + 1e-6 - cost - ways.costs
                going_on[ways.kind[rest >= aim.floors[ways.after]]] = True
                ending[ways.kind[ways.ends & (rest >= 0)]] = True
                best = np.maximum.reduceat(aim.hope[ways.after, _bins(rest)], ways.starts)
                promise[ways.kinds] = np.maximum(promise[ways.kinds], best)
        return going_on, ending, promise

    @functools.cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """What the rest of a line costs at least, and how likely it ends well, by its last class.

        The first is [S, K], the second [K, S, B]: the chance that words drawn by how frequent they
        are lead to where a word of the class may end the line, at what it may still cost.
        """
        number, count = 0, len(self.lexicon.classes)
        while number < len(self._states):  # which grow
            self._ways(number, False)
            number += 1
        floors = np.full((number, count), np.inf)
        hope = np.zeros((number, len(BINS), count), dtype=np.float32)
        for at in sorted(range(number), key=lambda each: -self._states[each].position):
            ways = self._ways(at, False)
            ends, inside = ways.ends, ways.kind < COMMON
            np.minimum.at(floors[at], ways.kind[ends], ways.costs[ends])
            hope[at] = floors[at] <= BINS[:, None]
            through = ways.costs[inside, None] + floors[ways.after[inside]]
            floors[at] = np.minimum(floors[at], through.min(0, initial=np.inf))
            for kind, start, end in zip(ways.kinds, ways.starts, [*ways.starts[1:], len(ways.kind)],
                                        strict=False):  # fmt: skip
                if kind < COMMON:
                    each = [hope[ways.after[way], _bins(BINS - ways.costs[way])]
                            for way in range(start, end)]  # fmt: skip
                    best = np.maximum.reduce(each) if len(each) > 1 else each[0]
                    hope[at] += self.lexicon.shares[kind] * best
        return floors, np.ascontiguousarray(np.moveaxis(hope, 2, 0))

    def _ends(self, state: State) -> bool:
        return self.machine.accepts(state) and state.position >= self._least

    def _number(self, state: State) -> int:
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def _ways(self, number: int, pause: bool) -> _Ways:
        known = self._known.get((number, pause))
        if known is None:
            state = self._states[number]
            found = [
                (kind, move.cost, self._number(move.state), self._ends(move.state))
                for kind, said in enumerate(self._said)
                for move in self.machine.moves(state, said, pause)
                if move.state.position > state.position  # what fills no place is not used
            ]
            kind, costs, after, ends = map(np.array, zip(*found, strict=True)) if found else (
                np.zeros(0, dtype=int), np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=bool)
            )  # fmt: skip
            kinds, starts = np.unique(kind, return_index=True)
            known = self._known[number, pause] = _Ways(kinds, starts, kind, costs, after, ends)
        return known


@functools.lru_cache(maxsize=16)
def metrical(lexicon: Lexicon, pattern: str, feminine: bool, licensed: bool) -> Metrical:
    """Return a metre over a lexicon, one for all texts."""
    return Metrical(lexicon, pattern, feminine, licensed)
