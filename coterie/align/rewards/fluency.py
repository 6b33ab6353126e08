"""Fluency: how likely the frozen reference finds a text, in nats per token."""

from typing import Literal

from coterie.align.rewards.interface import (
    Corpus,
    Reward,
    RewardError,
    RewardSettings,
    Sample,
    each,
)

_LEAST = -10.0


class Fluency(RewardSettings):
    """Log-probability of the text under the frozen reference, nats per token."""

    kind: Literal["fluency"] = "fluency"

    unit = "nats per token"
    low, high = _LEAST, 0.0

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return what the reference says, at least −10."""
        if sample.reference is None:
            raise RewardError("fluency needs a frozen reference, and nobody reads texts with one.")
        return max(sample.reference, _LEAST)
