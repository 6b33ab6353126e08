"""A regular expression that texts are to fit."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample
from coterie.align.rewards.limits import limited


class Pattern(RewardSettings):
    """1 for texts that fit a regular expression, 0 for others."""

    kind: Literal["pattern"] = "pattern"
    regex: str = Field(min_length=1, description="in Python's syntax")
    whole: bool = Field(default=False, description="the whole text must fit, not some part of it")
    seconds: float = Field(default=10.0, gt=0, description="the longest that one text may take")

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value

    def build(self, corpus: Corpus) -> Reward:
        compiled = re.compile(self.regex)
        fits = compiled.fullmatch if self.whole else compiled.search

        def judge(samples: Sequence[Sample]) -> list[float]:
            return [
                float(
                    limited(self.seconds, lambda: fits(each.text) is not None,  # noqa: B023
                            "The regular expression of the reward pattern", each)
                )
                for each in samples
            ]  # fmt: skip

        return judge
