"""Scansion: the cheapest way to say a line in a metre, by an automaton over its positions.

A metre is a row of weak and strong positions. A word's syllables fill them one by one; what is
irregular costs: a syllable too heavy or too light for its position beside its neighbours, a foot
that is turned round, a syllable too many at the end, and each licence of a reading. The costs were
learned from sonnets (`scripts/build_verse_costs.py`): their sum is the evidence, in nats, against a
line being verse, counted from the most regular line.

The automaton is incremental: its state after some words is all that the rest of the line needs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from coterie.language.verse.costs import learned
from coterie.language.verse.lines import Word, words
from coterie.language.verse.metres import Metre, metre_of
from coterie.language.verse.phones import ELIDED
from coterie.language.verse.signatures import MERGED, Option, Options, opens_with_vowel, options

START, PAUSE = "^", "|"
LIGHT, HEAVY = "0AOJM", "12C"  # weights that a strong, or a weak, position makes a reason of
Key = str


class State(NamedTuple):
    """Where a line stands: the next position, the weight before it, if a foot is turned round."""

    position: int
    before: str
    inverted: bool


class Move(NamedTuple):
    """A way to say the next word: where it leads, its cost in nats, and what it consists of."""

    state: State
    cost: float
    keys: tuple[Key, ...]
    marks: str
    option: Option


class Reason(NamedTuple):
    """What a line was charged for: where, what, and how many nats."""

    word: int
    name: str
    cost: float


class Scan(NamedTuple):
    """How a line is said in a metre.

    Attributes:
        words: of the line.
        marks: for each word, "w" or "s" for each of its syllables; one that runs into the next word
            is a "w" as well, one that is elided has no mark.
        said: for each word, its signature and licences.
        cost: in nats above the most regular line; infinite when the line does not fit.
        reasons: licences, turned feet, heavy syllables in weak positions and light in strong ones.
        limit: the cost up to which a line of this length counts as metrical.
    """

    words: tuple[Word, ...]
    marks: tuple[str, ...]
    said: tuple[Option, ...]
    cost: float
    reasons: tuple[Reason, ...]
    limit: float

    @property
    def metrical(self) -> bool:
        """Whether the line fits the metre at a cost within the limit."""
        return self.cost <= self.limit

    @property
    def pattern(self) -> str:
        """The marks of the whole line."""
        return "".join(self.marks)


_Put = tuple[State, float, tuple[Key, ...], str]


class Automaton:
    """The automaton of one pattern of weak and strong positions.

    Args:
        pattern: "w" and "s", such as "wswswswsws".
        feminine: whether a weak syllable may follow a last strong position.
        costs: by what is charged for; those that were learned by default.
    """

    def __init__(
        self, pattern: str, feminine: bool = True, costs: Mapping[Key, float] | None = None
    ) -> None:
        self.pattern = pattern
        self.costs = learned() if costs is None else costs
        self.end = len(pattern)
        self.extra = feminine and pattern.endswith("s")
        self._moves: dict[tuple[State, Options, bool], tuple[Move, ...]] = {}
        self._put: dict[tuple[State, str, bool], list[_Put]] = {}

    @property
    def limit(self) -> float:
        """The cost up to which a line counts as metrical."""
        return learned()["limit"] * self.end / 10

    @property
    def start(self) -> State:
        """The state before the first word."""
        return State(0, START, False)

    def accepts(self, state: State) -> bool:
        """Whether a line may end here."""
        return not state.inverted and state.position >= self.end

    def moves(self, state: State, said: Options, after_break: bool = False) -> tuple[Move, ...]:
        """Return what the ways to say a word lead to, the cheapest for each next state.

        Args:
            state: before the word.
            said: as `signatures.options` gives them.
            after_break: whether a pause precedes the word.
        """
        asked = (state, said, after_break)
        known = self._moves.get(asked)
        if known is None:
            best: dict[State, Move] = {}
            for option in said:
                for move in self._say(state, option, after_break):
                    if move.state not in best or move.cost < best[move.state].cost:
                        best[move.state] = move
            known = self._moves[asked] = tuple(best.values())
        return known

    def _say(self, state: State, option: Option, after_break: bool) -> Iterator[Move]:
        """Yield the ways to put one option into the positions, with a foot turned round or not."""
        licences = tuple(f"licence {name}" for name in option.licences)
        price = self.price(option.licences)
        asked = (state, option.signature, after_break)
        if asked not in self._put:
            self._put[asked] = self._put_all(*asked)
        for after, cost, keys, marks in self._put[asked]:
            yield Move(after, price + cost, (*licences, *keys), marks, option)

    def price(self, licences: Iterable[str]) -> float:
        """Return what licences cost, in nats."""
        return sum(self.costs.get(f"licence {name}", 0.0) for name in licences)

    def put(self, state: State, signature: str) -> Iterator[tuple[State, float]]:
        """Yield where syllables lead from a state, each with its cost in nats."""
        for after, cost, _, _ in self._put_all(state, signature, False):
            yield after, cost

    def _put_all(self, state: State, signature: str, after_break: bool) -> list[_Put]:
        """Return the ways to put syllables into the positions: state, cost, its keys, marks."""
        opened, keys = state, ()
        if after_break:
            opened = State(state.position, PAUSE, state.inverted)
            keys = (f"caesura {state.position}",)
        ways: list[tuple[State, tuple[Key, ...], str]] = [(opened, keys, "")]
        for index, weight in enumerate(signature):
            ways = [
                (after, (*before_keys, *new), marks + mark)
                for at, before_keys, marks in ways
                for after, new, mark in self._place(at, weight, first=index == 0)
            ]
        costs = self.costs
        return [(after, sum(costs.get(key, 0.0) for key in found), found, marks)
                for after, found, marks in ways]  # fmt: skip

    def _place(
        self, state: State, weight: str, first: bool
    ) -> list[tuple[State, tuple[Key, ...], str]]:
        """Return the ways to put a syllable in the next position: state, keys of its cost, mark."""
        at = state.position
        if weight in (ELIDED, MERGED):
            return [(state, (), "w" if weight == MERGED else "")]
        if at >= self.end:
            if at > self.end or not self.extra:
                return []
            return [(State(at + 1, weight, False), (f"feminine {weight}",), "w")]
        due = self.pattern[at]
        if state.inverted:
            keys = (f"weak {weight}", f"fall {state.before}{weight}")
            return [(State(at + 1, weight, False), keys, "w")]
        kind, name = ("weak", "sw") if due == "w" else ("strong", "ws")
        keys: tuple[Key, ...] = (f"{kind} {weight}", f"{name} {state.before}{weight}")
        if at == self.end - 1:
            keys = (*keys, f"close {weight}")
        found = [(State(at + 1, weight, False), keys, due)]
        if first and due == "w" and self.pattern[at + 1 : at + 2] == "s" and weight not in "03":
            pause = state.before if state.before in (START, PAUSE) else ""
            keys = (f"strong {weight}", f"inversion {at // 2 + 1}{pause}")
            found.append((State(at + 1, weight, True), keys, "s"))
        return found


class Counter(Automaton):
    """The automaton of lines that have so many syllables; each licence costs 1."""

    def __init__(self, syllables: int) -> None:
        licences = dict.fromkeys((key for key in learned() if key.startswith("licence ")), 1.0)
        super().__init__("w" * syllables, feminine=False, costs=licences)

    @property
    def limit(self) -> float:
        return float(self.end)

    def _put_all(self, state: State, signature: str, after_break: bool) -> list[_Put]:
        position = state.position + len(signature.replace(ELIDED, ""))
        if MERGED in signature or position > self.end:
            return []
        return [(State(position, START, False), 0.0, (), "")]


@functools.cache
def automaton(pattern: str, feminine: bool) -> Automaton:
    """Return the automaton of a pattern with the learned costs, one for all that ask.

    A pattern in digits counts syllables.
    """
    return Counter(int(pattern)) if pattern.isdigit() else Automaton(pattern, feminine)


_Path = tuple[float, Move | None, Any]  # what a way to a state costs, its last move, what is before


def cheapest(line: Sequence[Word], machine: Automaton) -> tuple[float, list[Move]]:
    """Return the cost and the moves of the cheapest way to say a line; infinite if it has none."""
    paths: dict[State, _Path] = {machine.start: (0.0, None, None)}
    last = len(line) - 1
    for index, word in enumerate(line):
        follows = index < last and not line[index + 1].after_break
        said = options(word.key, follows and opens_with_vowel(line[index + 1].key))
        reached: dict[State, _Path] = {}
        for state, path in paths.items():
            for move in machine.moves(state, said, word.after_break):
                cost = path[0] + move.cost
                other = reached.get(move.state)
                if other is None or cost < other[0]:
                    reached[move.state] = (cost, move, path)
        paths = reached
        if not paths:  # too long: no need to read the rest
            break
    ends = [path for state, path in paths.items() if machine.accepts(state)]
    if not ends:
        return float("inf"), []
    cost, move, back = min(ends, key=lambda path: path[0])
    moves = []
    while move is not None:
        moves.append(move)
        _, move, back = back
    return cost, moves[::-1]


def scan(line: str, metre: str | Metre = "iambic-pentameter", index: int = 0) -> Scan:
    """Return how a line is best said in a metre.

    Args:
        line: words without tags.
        metre: a name of `metres`, or one's own.
        index: which line of its stanza it is, from 0; it matters where lines are unlike.

    Raises:
        UserError: there is no such metre.
    """
    named = metre_of(metre).of_line(index)
    cut = words(line)
    found = [
        (*cheapest(cut, automaton(pattern, named.feminine)), pattern) for pattern in named.patterns
    ]
    cost, moves, pattern = min(found, key=lambda each: each[0] / len(each[2]))
    return Scan(
        words=tuple(cut),
        marks=tuple(move.marks for move in moves),
        said=tuple(move.option for move in moves),
        cost=cost,
        reasons=tuple(_reasons(moves, automaton(pattern, named.feminine).costs)),
        limit=automaton(pattern, named.feminine).limit,
    )


def _reasons(moves: Sequence[Move], costs: Mapping[Key, float]) -> Iterator[Reason]:
    """Yield what is irregular about a line, in its order."""
    for index, move in enumerate(moves):
        for key in move.keys:
            kind, _, what = key.partition(" ")
            cost = round(costs.get(key, 0.0), 2)
            if kind == "licence":
                yield Reason(index, what, cost)
            elif kind == "inversion":
                yield Reason(index, f"inverted foot {what.rstrip(START + PAUSE)}", cost)
            elif kind == "feminine":
                yield Reason(index, "feminine ending", cost)
            elif kind == "strong" and what in LIGHT:
                yield Reason(index, "promoted", cost)
            elif kind == "weak" and what in HEAVY:
                yield Reason(index, "demoted", cost)
