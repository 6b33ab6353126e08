"""Repetition costs: n-grams of words that stand in a text more than once, or in its prompt."""

from typing import Literal

from pydantic import Field

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample, each
from coterie.language.verse.lines import words


class Repetition(RewardSettings):
    """Minus the share of n-grams that were there before: 0 where all are new, −1 where none is."""

    kind: Literal["repetition"] = "repetition"
    n: int = Field(default=2, ge=1, le=32, description="words of an n-gram")

    low, high = -1.0, 0.0

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return minus the share of the text's n-grams that its prompt or it had before."""
        seen = set(ngrams(sample.prompt, self.n))
        again, own = 0, ngrams(sample.text, self.n)
        for gram in own:
            again += gram in seen
            seen.add(gram)
        return -again / len(own) if own else 0.0


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Return all runs of n words, in lower case, in their order."""
    keys = [word.key for word in words(text)]
    return [tuple(keys[at : at + n]) for at in range(len(keys) - n + 1)]
