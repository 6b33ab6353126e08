"""Structure: how many lines there are, and whether tags open, nest and close."""

import math
from typing import Literal

from pydantic import Field, model_validator

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample, each
from coterie.align.rewards.metre import lines_of
from coterie.language.drama.tags import check_tagged


class Structure(RewardSettings):
    """How well formed a text is: 1 for as many lines as asked for and sound tags."""

    kind: Literal["structure"] = "structure"
    lines: int | None = Field(default=None, ge=1, description="how many are wanted; None: any")
    tags: bool = Field(default=False, description="whether prompt and text are to be sound drama")

    @model_validator(mode="after")
    def _something(self) -> "Structure":
        if self.lines is None and not self.tags:
            raise ValueError("structure judges nothing; set lines=14, say, or tags=true")
        return self

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return exp(−deviations): lines too many or too few, and breaches of the grammar."""
        wrong = 0
        if self.lines is not None:
            wrong += abs(len(lines_of(sample.lines)) - self.lines)
        if self.tags:
            wrong += len(check_tagged(sample.prompt + sample.text))
        return math.exp(-wrong)
