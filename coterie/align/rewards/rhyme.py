"""Rhyme: how near in sound the lines end that a scheme wants to rhyme."""

import math
from typing import Literal

from pydantic import Field, field_validator

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample, each
from coterie.align.rewards.metre import lines_of
from coterie.language.verse.rhyme import SLANT, last_word, rhyme
from coterie.language.verse.schemes import form_of, pairs_of


class Rhyme(RewardSettings):
    """How near lines end in sound: 1 for perfect rhymes, 0 for none and for a word with itself."""

    kind: Literal["rhyme"] = "rhyme"
    form: str = Field(default="AA", description="a named form, or a letter for each line")
    after: int = Field(default=0, ge=0, description="lines of the form that the prompt ends with")

    unit = "mean over pairs"

    @field_validator("form")
    @classmethod
    def _known(cls, value: str) -> str:
        return form_of(value).name

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return the mean over pairs of lines that rhyme by the form and were written, in part.

        Pairs of which a line is missing count 0.
        """
        whole = sample.prompt.rpartition("\n")[0]
        before = lines_of(whole)[-self.after :] if self.after else []
        lines = [*before, *lines_of(sample.lines)]
        pairs = [pair for pair in pairs_of(form_of(self.form).letters) if pair[1] >= len(before)]
        found = [_nearness(lines, *pair) for pair in pairs]
        return sum(found) / len(found) if found else 0.0


def _nearness(lines: list[str], first: int, second: int) -> float:
    if second >= len(lines):
        return 0.0
    found = rhyme(last_word(lines[first]), last_word(lines[second]))
    return 0.0 if found.kind == "identical" else math.exp(-found.distance / SLANT)
