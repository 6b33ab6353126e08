"""What a line in the making may go on with: the automaton of a metre over classes of words.

For every state of a line and every class of words it is known what the cheapest line costs that
goes on with such a word and ends as it must. So each word that is admitted leaves a line that can
be finished within its budget, and there are no dead ends.
"""

import functools
from typing import NamedTuple

import numpy as np

from coterie.generate.constraints.lexicon import Lexicon
from coterie.language.verse.scansion import Move, State, automaton

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
    """Where each class of words leads from a state: costs and states, [K, M]."""

    costs: np.ndarray
    after: np.ndarray
    ends: np.ndarray


class Metrical:
    """A metre's pattern over the classes of a lexicon."""

    def __init__(self, lexicon: Lexicon, pattern: str, feminine: bool) -> None:
        self.lexicon, self.machine = lexicon, automaton(pattern, feminine)
        self._states: list[State] = []
        self._numbers: dict[State, int] = {}
        self._known: dict[tuple[int, bool], _Ways] = {}
        self._floors: dict[bytes, dict[int, float]] = {}

    @functools.cached_property
    def outlook(self) -> np.ndarray:
        """How likely lines end well whose words are drawn by how frequent they are, [S, B, K].

        Of each state, and of each bin of what the line may still cost, the sum over all numbers of
        words before a last one of each class that fits.
        """
        waiting, lengths = [self.machine.start], [
            max(len(each.signature) for each in said) for said in self.lexicon.classes
        ]  # fmt: skip
        found: dict[int, list[list[Move]]] = {}
        while waiting:
            state = waiting.pop()
            number = self._number(state)
            if number not in found:
                found[number] = [
                    self._moves(state, kind)
                    if kind < COMMON or state.position + length >= self.machine.end else []
                    for kind, length in enumerate(lengths)
                ]  # fmt: skip
                waiting += [move.state for moves in found[number][:COMMON] for move in moves]
        hope = np.zeros((max(found) + 2, len(BINS), len(lengths)), dtype=np.float32)
        for number in sorted(found, key=lambda each: -self._states[each].position):
            for kind, moves in enumerate(found[number]):
                ends = [move.cost for move in moves if self.machine.accepts(move.state)]
                hope[number, :, kind] += min(ends, default=np.inf) <= BINS
            for kind, moves in enumerate(found[number][:COMMON]):
                ways = [hope[self._number(move.state), _bins(BINS - move.cost)] for move in moves]
                if ways:
                    hope[number] += self.lexicon.shares[kind] * np.maximum.reduce(ways)
        return hope

    def promise(self, line: Line, hope: np.ndarray, most: float) -> np.ndarray:
        """Return how likely the line ends well after a word of each class, [K].

        Args:
            line: before the word.
            hope: of each state and bin, [S, B].
            most: what the line may cost.
        """
        best = np.zeros(len(self.lexicon.classes), dtype=hope.dtype)
        for state, cost in line.states:
            ways = self._ways(self._number(state), line.pause)
            rows = np.minimum(ways.after, len(hope) - 1)
            best = np.maximum(best, hope[rows, _bins(most - cost - ways.costs)].max(1))
        return best

    @property
    def start(self) -> Line:
        """A line before its first word."""
        return Line(((self.machine.start, 0.0),))

    def after(self, line: Line, kind: int, finals: np.ndarray, most: float) -> Line:
        """Return the line after a word of a class, in the states from which it can be finished."""
        reached: dict[State, float] = {}
        for state, cost in line.states:
            for move in self.machine.moves(state, self.lexicon.classes[kind], line.pause):
                total = round(cost + move.cost, 6)
                rest = self._floor(self._number(move.state), finals)
                if total + rest <= most + 1e-6 and total < reached.get(move.state, np.inf):
                    reached[move.state] = total
        return Line(tuple(sorted(reached.items())))

    def going_on(self, line: Line, finals: np.ndarray, most: float) -> np.ndarray:
        """Return which classes may stand next with others to follow, bool [K].

        Args:
            finals: the classes that may end the line, bool [K].
            most: what the line may cost.
        """
        best = np.full(len(self.lexicon.classes), np.inf)
        for state, cost in line.states:
            ways = self._ways(self._number(state), line.pause)
            floors = np.array([self._floor(int(each), finals) for each in np.unique(ways.after)])
            places = np.searchsorted(np.unique(ways.after), ways.after)
            best = np.minimum(best, cost + (ways.costs + floors[places]).min(1))
        return best <= most + 1e-6

    def ending(self, line: Line, most: float) -> np.ndarray:
        """Return which classes may end the line, bool [K]."""
        best = np.full(len(self.lexicon.classes), np.inf)
        for state, cost in line.states:
            ways = self._ways(self._number(state), line.pause)
            best = np.minimum(best, cost + np.where(ways.ends, ways.costs, np.inf).min(1))
        return best <= most + 1e-6

    def cheapest(self, finals: np.ndarray) -> float:
        """Return what the cheapest line costs that ends in one of some classes."""
        return self._floor(self._number(self.machine.start), finals)

    def _number(self, state: State) -> int:
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def _ways(self, number: int, pause: bool) -> _Ways:
        known = self._known.get((number, pause))
        if known is None:
            state = self._states[number]
            moves = [self.machine.moves(state, each, pause) for each in self.lexicon.classes]
            width = max(1, *map(len, moves))
            costs = np.full((len(moves), width), np.inf)
            after = np.full((len(moves), width), number)
            ends = np.zeros((len(moves), width), dtype=bool)
            for kind, found in enumerate(moves):
                for at, move in enumerate(found):
                    if move.state.position > state.position:  # what fills no place is not used
                        costs[kind, at] = move.cost
                        after[kind, at] = self._number(move.state)
                        ends[kind, at] = self.machine.accepts(move.state)
            known = self._known[number, pause] = _Ways(costs, after, ends)
        return known

    def _floor(self, number: int, finals: np.ndarray) -> float:
        """Return what it costs at least to finish a line from a state, by common words."""
        floors = self._floors.setdefault(finals.tobytes(), {})
        if number not in floors:
            state = self._states[number]
            last = np.inf
            for kind in np.flatnonzero(finals)[:COMMON]:
                for move in self._moves(state, int(kind)):
                    if self.machine.accepts(move.state):
                        last = min(last, move.cost)
            rest = min((cost + self._floor(each, finals) for each, cost in self._inside(number)),
                       default=np.inf)  # fmt: skip
            floors[number] = float(min(last, rest))
        return floors[number]

    def _moves(self, state: State, kind: int) -> list[Move]:
        """Return the ways to say a class of words that fill a place."""
        moves = self.machine.moves(state, self.lexicon.classes[kind])
        return [move for move in moves if move.state.position > state.position]

    @functools.cache  # noqa: B019 - metres live as long as the process
    def _inside(self, number: int) -> list[tuple[int, float]]:
        """Return where common words lead from a state, at what cost."""
        cheapest: dict[int, float] = {}
        for kind in range(min(COMMON, len(self.lexicon.classes))):
            for move in self._moves(self._states[number], kind):
                after = self._number(move.state)
                cheapest[after] = min(move.cost, cheapest.get(after, np.inf))
        return list(cheapest.items())


@functools.lru_cache(maxsize=16)
def metrical(lexicon: Lexicon, pattern: str, feminine: bool) -> Metrical:
    """Return a metre over a lexicon, one for all texts."""
    return Metrical(lexicon, pattern, feminine)
