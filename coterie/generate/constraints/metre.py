"""What a line in the making may go on with: the automaton of a metre over classes of words.

For every state of a line and every class of words it is known what the cheapest line costs that
goes on with such a word and ends as it must. So each word that is admitted leaves a line that can
be finished within its budget, and there are no dead ends.
"""

import functools
from typing import NamedTuple

import numpy as np

from coterie.foundation.errors import require
from coterie.generate.constraints import loops
from coterie.generate.constraints.lexicon import Lexicon
from coterie.generate.constraints.loops.tables import BINS, COARSE, FAR, LOWEST, Aim, Ways
from coterie.language.verse.scansion import PAUSE, State, automaton
from coterie.language.verse.signatures import Options

COMMON = 60  # classes that are counted on to fill a line: 97 % of all words
_ABOVE = 8  # bins above a line's budget, for what costs less than nothing
_STATES = 128  # that a line may be in at once

Line = bytes
"""Where a line stands: the states that it may be in and what each has cost, float64 [n, 2]."""


class Next(NamedTuple):
    """What may stand next on a line.

    Attributes:
        line: where it stands; empty: it cannot be finished.
        going: of each class how likely the line ends well when others follow, in parts of `WHOLE`;
            0: none can, int64 [K].
        ending: which may end it, int64 [K].
        value: how likely the line ends well; 0: it cannot.
    """

    line: Line
    going: np.ndarray
    ending: np.ndarray
    value: float


def _table(line: Line) -> np.ndarray:
    return np.frombuffer(line, dtype=np.float64).reshape(-1, 2)


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
        self._numbers: dict[State, int] = {}
        require("numba", "verse")
        self._lines, self._values = np.zeros((2, _STATES, 2)), np.zeros(2)
        self.ways = self._lay_out()
        self.start: Line = np.array([[0.0, 0.0]]).tobytes()

    def aim(self, most: float, floors: np.ndarray, finals: np.ndarray) -> Aim:
        """Return what lines are to reach.

        Args:
            most: what a line may cost.
            floors: what `floors` returns.
            finals: of each class how much of a text is words of it that may end the line, [K].
        """
        bins = min(BINS, int((most - LOWEST) / COARSE) + 1 + _ABOVE)
        hope = np.zeros((len(self.ways.order), bins), dtype=np.float32)
        loops.hopes(self.ways, finals, self.lexicon.shares, COMMON, bins, hope)
        return Aim(np.array([most]), floors, hope, finals)

    def ahead(self, line: Line, kind: int, aim: Aim) -> tuple[Next, Next]:
        """Return where a line stands after a word of a class, without a pause and with one.

        Args:
            line: before it.
            kind: the class; −1: no word, there is only a pause.
            aim: of the line.
        """
        going, ending = np.zeros((2, 2, len(self._said)), dtype=np.int64)
        if not line:
            nowhere = Next(line, going[0], ending[0], 0.0)
            return nowhere, nowhere
        counts = loops.ahead(
            _table(line), kind, self.ways, aim, self.lexicon.shares, self._lines, going, ending,
            self._values,
        )  # fmt: skip
        one, two = [
            Next(self._lines[at, :count].tobytes(), going[at], ending[at], float(self._values[at]))
            for at, count in enumerate(counts)
        ]
        return one, two

    def after_said(self, line: Line, said: Options, aim: Aim, pause: bool) -> Line:
        """Return the line after a word that is in no class, and perhaps a pause."""
        reached: dict[int, float] = {}
        names = list(self._numbers)
        for state, spent in _table(line).tolist() if line else ():
            for move in self.machine.moves(names[int(state)], said):
                after = self._numbers.get(move.state)
                if after is not None and move.state.position > names[int(state)].position:
                    total = spent + move.cost
                    if pause:
                        total += self.ways.prices[after]
                        after = int(self.ways.pauses[after])
                    if total + aim.floors[after] <= aim.most[0]:
                        reached[after] = min(total, reached.get(after, FAR))
        return np.array(sorted(reached.items())).tobytes()

    def look(self, line: Line, aim: Aim) -> Next:
        """Return what may stand next."""
        going, ending = np.zeros((2, len(self._said)), dtype=np.int64)
        if not line:
            return Next(line, going, ending, 0.0)
        shares = self.lexicon.shares
        value = loops.look(_table(line), self.ways, aim, shares, going, ending)
        return Next(line, going, ending, value)

    def floors(self, finals: np.ndarray) -> np.ndarray:
        """Return what lines cost at least, from each state on, that end in some classes, [S]."""
        found = np.full(len(self.ways.order), FAR)
        loops.floors(self.ways, finals, COMMON, found)
        return found

    def _number(self, state: State) -> int:
        return self._numbers.setdefault(state, len(self._numbers))

    def _lay_out(self) -> Ways:
        """Return where all classes lead from all states that a line can reach."""
        machine = self.machine
        options = [(kind, each.signature, each.licences) for kind, said in enumerate(self._said)
                   for each in said]  # fmt: skip
        signatures = sorted({signature for _, signature, _ in options})
        index = {signature: at for at, signature in enumerate(signatures)}
        kinds = np.array([kind for kind, _, _ in options])
        said = np.array([index[signature] for _, signature, _ in options])
        prices = np.array([machine.price(licences) for _, _, licences in options])
        pauses, found = [], []
        self._number(machine.start)
        number = 0
        while number < len(self._numbers):  # which grow
            state = list(self._numbers)[number]
            pauses.append(self._number(State(state.position, PAUSE, state.inverted)))
            led = [
                (at, cost, self._number(after), self._ends(after))
                for at, signature in enumerate(signatures)
                for after, cost in machine.put(state, signature)
                if after.position > state.position  # what fills no place is not used
            ]
            if led:
                at, cost, after, ends = map(np.array, zip(*led, strict=True))
                counts = np.bincount(at, minlength=len(signatures))
                each = counts[said]  # of each option its ways
                offsets = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
                way = np.repeat((np.cumsum(counts) - counts)[said], each) + offsets
                cells = number * len(self._said) + np.repeat(kinds, each)
                costs = cost[way] + np.repeat(prices, each)
                found.append((cells, costs, after[way], ends[way]))
            number += 1
        states = list(self._numbers)
        cells, costs, after, ends = map(np.concatenate, zip(*found, strict=True))
        order = np.lexsort((costs, after, cells))  # the cheapest to each state
        first = np.append(True, np.any(np.diff([cells[order], after[order]]), axis=0))
        kept = order[first]
        starts = np.searchsorted(cells[kept], np.arange(len(states) * len(self._said) + 1))
        near = np.argsort([-state.position for state in states], kind="stable")
        caesuras = [
            0.0 if state.before == PAUSE else machine.costs.get(f"caesura {state.position}", 0.0)
            for state in states
        ]
        return Ways(
            starts, costs[kept], after[kept], ends[kept], near, np.array(pauses), np.array(caesuras)
        )

    def _ends(self, state: State) -> bool:
        return self.machine.accepts(state) and state.position >= self._least


@functools.lru_cache(maxsize=16)
def metrical(lexicon: Lexicon, pattern: str, feminine: bool, licensed: bool) -> Metrical:
    """Return a metre over a lexicon, one for all texts."""
    return Metrical(lexicon, pattern, feminine, licensed)
