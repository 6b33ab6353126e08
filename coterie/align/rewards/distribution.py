"""Words as people use them: how a count per line is spread, beside the training text's lines.

A line whose count x is rarer among what is written than among the training text's lines gains,
one whose count is commoner loses: the reward is ln p(x) − ln q(x), for p over the training text's
lines and q over the lines judged together, both smoothed. Its policy gradient lowers KL(q ‖ p), so
that more is not better: nothing is gained once q is as p.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import ClassVar, Literal

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample
from coterie.align.rewards.metre import lines_of
from coterie.foundation.errors import UserError
from coterie.language.pairs import pairs_of
from coterie.language.verse.lines import words
from coterie.language.verse.phones import syllables
from coterie.language.verse.readings import readings

_LINES = 4000  # of the training text, evenly spread: enough for shares of a hundredth
_SMOOTHING = 2.0
_MOST = 3.0
_OLD = re.compile(r"(?:th(?:ou|ee|y|ine|yself)|.{2,}(?:eth|'st|'d)|'t\w+|\w+'er)$")


def archaic_words(line: str) -> int:
    """Return how many words of a line are archaic, 3 for more."""
    old = pairs_of("archaic")
    keys = [word.key.strip("'") for word in words(line)]
    return min(sum(key in old or _OLD.match(key) is not None for key in keys), 3)


def long_words(line: str) -> int:
    """Return how many words of a line have more than one syllable, 5 for more."""
    single = [syllables(readings(word.key)[0].phones) <= 1 for word in words(line)]
    return min(len(single) - sum(single), 5)


class _Spread(RewardSettings):
    unit = "nats"
    low, high = -_MOST, _MOST
    statistic: ClassVar[Callable[[str], int]]

    def build(self, corpus: Corpus) -> Reward:
        return SpreadReward(type(self).statistic, corpus)


class Archaic(_Spread):
    """Archaic words per line as often as in the training text: neither fewer nor more."""

    kind: Literal["archaic"] = "archaic"
    statistic = staticmethod(archaic_words)


class LongWords(_Spread):
    """Words of several syllables per line as often as in the training text.

    A reward of metre alone drives a model into monosyllables, which fit everywhere.
    """

    kind: Literal["long_words"] = "long_words"
    statistic = staticmethod(long_words)


class SpreadReward:
    """Holds the shares of the training text's lines."""

    def __init__(self, statistic: Callable[[str], int], corpus: Corpus) -> None:
        self._statistic, self._corpus = statistic, corpus

    @cached_property
    def _human(self) -> Counter[int]:
        lines = [line for line in self._corpus.text.splitlines() if words(line)]
        if not lines:
            raise UserError(
                "A reward that holds words against the training text needs it, and it is empty.",
                hint="Leave archaic and long_words out of the rewards.",
            )
        return Counter(map(self._statistic, lines[:: max(len(lines) // _LINES, 1)]))

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return the mean over each sample's lines; the lower bound where it has none."""
        counts = [[self._statistic(line) for line in lines_of(each.lines)] for each in samples]
        own = Counter(count for each in counts for count in each)
        human = self._human
        values = sorted({*own, *human})
        p, q = _shares(human, values), _shares(own, values)
        gain = {x: min(max(math.log(p[x] / q[x]), -_MOST), _MOST) for x in values}
        return [sum(map(gain.__getitem__, each)) / len(each) if each else -_MOST for each in counts]


def _shares(counts: Counter[int], values: Iterable[int]) -> dict[int, float]:
    smoothed = {x: counts[x] + _SMOOTHING for x in values}
    total = sum(smoothed.values())
    return {x: count / total for x, count in smoothed.items()}
