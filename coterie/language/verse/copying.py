"""What was copied: the longest run of words that stands in a written text and in another.

The written text becomes a suffix automaton (Blumer et al. 1985, “The smallest automaton recognizing
the subwords of a text”), through which the other is read word by word: time goes with the length of
both, memory with the written text alone, so that the other may be a whole training split.
"""

from collections.abc import Iterable, Iterator, Sequence

from coterie.language.verse.lines import WORD, key_of


def keys_of(text: str) -> Iterator[str]:
    """Yield the words of a text as they are compared."""
    return (key_of(found[0]).strip("'") for found in WORD.finditer(text))


class Automaton:
    """Every run of words of a text, as a minimal automaton of at most twice as many states."""

    def __init__(self, words: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link, self._length, self._end = [-1], [0], [-1]
        last = 0
        for at, word in enumerate(words):
            last = self._extend(last, word, at)

    def longest(self, words: Iterable[str]) -> tuple[int, int]:
        """Return the length of the longest run that other words share, and where it ends here.

        The end is the place of its last word in the text, −1 where nothing is shared.
        """
        best, end = 0, -1
        state = length = 0
        for word in words:
            while state and word not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            if word in self._next[state]:
                state = self._next[state][word]
                length += 1
            if length > best:
                best, end = length, self._end[state]
        return best, end

    def _extend(self, last: int, word: str, at: int) -> int:
        new = self._state({}, self._length[last] + 1, 0, at)
        before = last
        while before >= 0 and word not in self._next[before]:
            self._next[before][word] = new
            before = self._link[before]
        if before >= 0:
            after = self._next[before][word]
            if self._length[before] + 1 == self._length[after]:
                self._link[new] = after
            else:
                self._link[new] = self._split(before, after, word)
        return new

    def _split(self, before: int, after: int, word: str) -> int:
        """Return a copy of a state for the shorter runs that lead to it."""
        copy = self._state(
            dict(self._next[after]), self._length[before] + 1, self._link[after], self._end[after]
        )
        while before >= 0 and self._next[before].get(word) == after:
            self._next[before][word] = copy
            before = self._link[before]
        self._link[after] = copy
        return copy

    def _state(self, ways: dict[str, int], length: int, link: int, end: int) -> int:
        self._next.append(ways)
        self._length.append(length)
        self._link.append(link)
        self._end.append(end)
        return len(self._next) - 1


def longest_run(written: Sequence[str], others: Iterable[str]) -> list[str]:
    """Return the longest run of words that stands in other texts too; of equals the first.

    Args:
        written: words as `keys_of` gives them.
        others: texts; no run goes on from one to the next.
    """
    automaton = Automaton(written)
    best: tuple[int, int] = (0, -1)
    for text in others:
        found = automaton.longest(keys_of(text))
        best = max(best, found, key=lambda each: each[0])
    length, end = best
    return list(written[end - length + 1 : end + 1])
