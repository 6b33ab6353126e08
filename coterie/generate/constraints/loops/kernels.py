"""Loops over the ways through a metre, and over words; `tables` says what they work on."""

import numpy as np

from coterie.generate.constraints.loops.tables import (
    COARSE,
    FAR,
    LEAST,
    LOWEST,
    SLACK,
    WHOLE,
    Aim,
    Between,
    Ways,
    Words,
)
from coterie.generate.native import entry_point


@entry_point
def floors(ways: Ways, finals: np.ndarray, common: int, out: np.ndarray) -> None:
    """Find what the rest of a line costs at least, from each state on."""
    count = len(finals)
    for state in ways.order:
        best = FAR
        for kind in range(count):
            if kind >= common and finals[kind] <= 0:
                continue
            for way in range(
                ways.starts[state * count + kind], ways.starts[state * count + kind + 1]
            ):
                cost = ways.costs[way]
                if ways.ends[way] and finals[kind] > 0:
                    best = min(best, cost)
                if kind < common:
                    best = min(best, cost + out[ways.after[way]])
        out[state] = best


@entry_point
def hopes(
    ways: Ways, finals: np.ndarray, shares: np.ndarray, common: int, bins: int, out: np.ndarray
) -> None:
    """Find how likely words drawn by their shares end a line well, by what it may still cost."""
    count = len(finals)
    wide = np.zeros((len(ways.order), 3 * bins), dtype=np.float32)  # with what is beyond either end
    best = np.zeros(bins, dtype=np.float32)
    for state in ways.order:
        here = out[state]
        for kind in range(count):
            first, last = ways.starts[state * count + kind], ways.starts[state * count + kind + 1]
            share, several = np.float32(shares[kind]), last - first > 1
            for way in range(first, last if kind < common else first):
                shift = int(np.floor(0.5 - ways.costs[way] / COARSE))
                start = bins + min(max(shift, -bins), bins)
                after = wide[ways.after[way], start : start + bins]
                if several:
                    for at in range(bins):
                        best[at] = max(best[at], after[at])
                else:
                    for at in range(bins):
                        here[at] += share * after[at]
            if several and kind < common:
                for at in range(bins):
                    here[at] += share * best[at]
                    best[at] = 0
            if finals[kind] > 0:
                least = FAR
                for way in range(first, last):
                    if ways.ends[way]:
                        least = min(least, ways.costs[way])
                if least < FAR:
                    for at in range(max(0, int(np.ceil((least - LOWEST) / COARSE))), bins):
                        here[at] += np.float32(finals[kind])
        wide[state, :bins] = here[0]
        wide[state, bins : 2 * bins] = here
        wide[state, 2 * bins :] = here[bins - 1]


@entry_point
def advance(line: np.ndarray, kind: int, pause: bool, ways: Ways, aim: Aim, out: np.ndarray) -> int:
    """Write the line after a word of a class and return how many states it may be in.

    A class of −1 is no word: there is only a pause.
    """
    found, count = 0, len(aim.finals)
    for row in range(len(line)):
        state, spent = int(line[row, 0]), line[row, 1]
        first = 0 if kind < 0 else ways.starts[state * count + kind]
        last = 1 if kind < 0 else ways.starts[state * count + kind + 1]
        for way in range(first, last):
            after, total = (state, spent) if kind < 0 else (
                int(ways.after[way]), spent + ways.costs[way]
            )  # fmt: skip
            if pause:
                total += ways.prices[after]
                after = ways.pauses[after]
            if total + aim.floors[after] > aim.most[0] + SLACK:
                continue
            at = 0
            while at < found and out[at, 0] < after:
                at += 1
            if at < found and out[at, 0] == after:
                out[at, 1] = min(out[at, 1], total)
            elif found < len(out):
                for other in range(found, at, -1):
                    out[other, 0], out[other, 1] = out[other - 1, 0], out[other - 1, 1]
                out[at, 0], out[at, 1] = after, total
                found += 1
    return found


@entry_point
def look(
    line: np.ndarray,
    ways: Ways,
    aim: Aim,
    shares: np.ndarray,
    going: np.ndarray,
    ending: np.ndarray,
) -> float:
    """Find what may stand next, and return how likely the line ends well; 0: it cannot.

    Args:
        line: where it stands.
        ways: of the metre.
        aim: of the line.
        shares: of each class how much of a text it is, [K].
        going: becomes how likely the line ends well when others follow a word of each class, in
            parts of `WHOLE`; 0: none can, int64 [K].
        ending: becomes which classes may end it, int64 [K].
    """
    value, count, bins = 0.0, len(shares), aim.hope.shape[1]
    for kind in range(count):
        promise, ends = np.float32(0), 0
        for row in range(len(line)):
            state = int(line[row, 0])
            room = aim.most[0] + SLACK - line[row, 1]
            for way in range(
                ways.starts[state * count + kind], ways.starts[state * count + kind + 1]
            ):
                rest, after = room - ways.costs[way], ways.after[way]
                if rest >= aim.floors[after]:
                    at = int(min(max((rest - LOWEST) / COARSE + 0.5, 0), bins - 1))
                    promise = max(promise, aim.hope[after, at], np.float32(LEAST))
                if rest >= 0 and ways.ends[way] and aim.finals[kind] > 0:
                    ends = 1
        going[kind], ending[kind] = int(promise * WHOLE), ends
        value += promise * shares[kind] + ends * aim.finals[kind]
    return value


@entry_point
def ahead(
    line: np.ndarray, kind: int, ways: Ways, aim: Aim, shares: np.ndarray, lines: np.ndarray,
    going: np.ndarray, ending: np.ndarray, values: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Find where a line stands after a word of a class, without a pause (0) and with one (1).

    Args:
        line: before it.
        kind: the class; −1: no word, there is only a pause.
        ways: of the metre.
        aim: of the line.
        shares: as `look` has them.
        lines: become both lines, [2, n, 2], of which so many rows count as is returned.
        going: becomes what `look` finds for both, [2, K].
        ending: too, [2, K].
        values: becomes what it returns, [2].
    """
    counts = (
        advance(line, kind, False, ways, aim, lines[0]),
        advance(line, kind, True, ways, aim, lines[1]),
    )
    for at in range(2):
        count = counts[0] if at == 0 else counts[1]
        values[at] = look(lines[at, :count], ways, aim, shares, going[at], ending[at])
    return counts


@entry_point
def running(
    going: np.ndarray, ending: np.ndarray, welcome: np.ndarray, kinds: np.ndarray,
    uses: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Find how often the words before each stand here and end well, in parts, int64 [W + 1]."""
    total = 0
    if ending.any():
        for word in range(len(kinds)):
            kind = kinds[word]
            total += (going[kind] + ending[kind] * welcome[word]) * uses[word]
            out[word + 1] = total
    else:
        for word in range(len(kinds)):
            total += going[kinds[word]] * uses[word]
            out[word + 1] = total


@entry_point
def fit(words: Words, sums: np.ndarray, scale: float, gladly: float, added: np.ndarray) -> None:
    """Weigh tokens by how likely the words below where they lead stand here and end well."""
    for node in range(len(words.first)):
        chance = sums[words.after[node]] - sums[words.first[node]]
        if chance:
            weight = gladly * np.log(max(chance * words.parts[node] * scale, LEAST))
            for at in range(words.starts[node], words.starts[node + 1]):
                token = words.tokens[at]
                added[token] = max(added[token], weight)  # "-" is in words, and half a dash


@entry_point
def put(words: Between, chances: np.ndarray, gladly: float, added: np.ndarray) -> None:
    """Weigh tokens by the chances of where they lead."""
    for at in range(len(words.tokens)):
        chance, token = chances[words.at[at]], words.tokens[at]
        if chance:
            added[token] = max(added[token], gladly * np.log(max(chance, LEAST)))
