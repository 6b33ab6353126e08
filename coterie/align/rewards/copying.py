"""Copying costs: words that stand in a run which the training text has too."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from pydantic import Field

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample
from coterie.align.rewards.repetition import ngrams
from coterie.language.verse.lines import words


class Copying(RewardSettings):
    """Minus the share of words in runs of the training text: 0 for new words, −1 for a copy."""

    kind: Literal["copying"] = "copying"
    run: int = Field(default=5, ge=2, le=64, description="words in a row that no chance makes")

    low, high = -1.0, 0.0

    def build(self, corpus: Corpus) -> Reward:
        return CopyingReward(self.run, corpus)


class CopyingReward:
    """Holds the runs of the training text, as hashes of 64 bits, which tell them apart."""

    def __init__(self, run: int, corpus: Corpus) -> None:
        self._run, self._corpus = run, corpus

    @cached_property
    def _known(self) -> frozenset[int]:
        return frozenset(map(hash, ngrams(self._corpus.text, self._run)))

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return minus the copied share of each text's words."""
        return [-self._share(sample.text) for sample in samples]

    def _share(self, text: str) -> float:
        number = len(words(text))
        copied: set[int] = set()
        for at, gram in enumerate(ngrams(text, self._run)):
            if hash(gram) in self._known:
                copied.update(range(at, at + self._run))
        return len(copied) / number if number else 0.0
