"""The sum of several rewards: each clipped, normalised if asked, weighted."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coterie.align.rewards.interface import Corpus, RewardSettings, Sample

_EPSILON = 1e-6


@dataclass(frozen=True)
class Scores:
    """What texts got.

    Attributes:
        total: the weighted sum, of each text.
        parts: what each reward returned before clipping, by its name.
    """

    total: list[float]
    parts: dict[str, list[float]]


class Judge:
    """Judges texts by a weighted sum of rewards.

    Args:
        rewards: at least one.
        corpus: what the model was trained on.

    Raises:
        UserError: a reward cannot be had.
    """

    def __init__(self, rewards: Sequence[RewardSettings], corpus: Corpus) -> None:
        assert rewards
        numbers: Counter[str] = Counter()
        self._rewards = {}
        for each in rewards:
            kind = str(getattr(each, "kind"))  # noqa: B009 - the base has none
            name = f"{kind}_{numbers[kind] + 1}" if numbers[kind] else kind
            numbers[kind] += 1
            self._rewards[name] = each, each.build(corpus)

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Return the scores of texts, which are judged together.

        Raises:
            RewardError: one cannot be judged.
        """
        total = [0.0] * len(samples)
        parts = {}
        for name, (settings, reward) in self._rewards.items():
            parts[name] = values = reward(samples)
            for index, value in enumerate(_counted(values, settings)):
                total[index] += settings.weight * value
        return Scores(total, parts)


def _counted(values: Sequence[float], settings: RewardSettings) -> list[float]:
    low, high = settings.clip or (-float("inf"), float("inf"))
    clipped = [min(max(value, low), high) for value in values]
    if not settings.normalise:
        return clipped
    mean, deviation = statistics.fmean(clipped), statistics.pstdev(clipped)
    return [(value - mean) / (deviation + _EPSILON) for value in clipped]
