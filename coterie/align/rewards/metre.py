"""Metre: how well each line scans, graded so that nearly right lines are told apart.

A line gets 0.3 for its number of syllables, falling by e with every two too many or too few, and
0.7 for its scansion, falling by e with every `scale` nats of cost above `easy`. Half of the lines
in Shakespeare's verse cost less than 2.9 nats, a tenth less than 1.2: a line as regular as those
within `easy` gains nothing by being more regular still.
"""

import math
from typing import Literal

from pydantic import Field, field_validator

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample, each
from coterie.language.verse.lines import words
from coterie.language.verse.metres import metre_of
from coterie.language.verse.phones import syllables
from coterie.language.verse.readings import readings
from coterie.language.verse.scansion import scan
from coterie.language.verse.score import stanzas

_COUNTED, _SCANNED = 0.3, 0.7


class Metre(RewardSettings):
    """How well lines scan: 1 for regular ones, 0 for what is no line of the metre."""

    kind: Literal["metre"] = "metre"
    metre: str = Field(default="iambic-pentameter", description="that lines are held against")
    easy: float = Field(default=1.5, ge=0, description="nats of cost that take nothing away")
    scale: float = Field(default=3.0, gt=0, description="nats of cost by which a line falls by e")
    graded: bool = Field(
        default=True, description="false: 1 for a metrical line and 0 for any other"
    )

    unit = "mean over lines"

    @field_validator("metre")
    @classmethod
    def _known(cls, value: str) -> str:
        return metre_of(value).name

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return the mean over the lines of a text; 0 where there is none."""
        lines = lines_of(sample.lines)
        if not lines:
            return 0.0
        judge = self._line if self.graded else self._metrical
        return sum(judge(line, index) for index, line in enumerate(lines)) / len(lines)

    def _metrical(self, line: str, index: int) -> float:
        return float(scan(line, self.metre, index).metrical)

    def _line(self, line: str, index: int) -> float:
        named = metre_of(self.metre).of_line(index)
        due = list(map(len, named.patterns)) or [named.syllables[index % len(named.syllables)]]
        count = sum(syllables(readings(word.key)[0].phones) for word in words(line))
        extra = int(named.feminine and bool(named.patterns))
        off = min(max(size - count, count - size - extra, 0) for size in due)
        cost = scan(line, self.metre, index).cost
        return _COUNTED * math.exp(-off / 2) + _SCANNED * math.exp(
            -max(cost - self.easy, 0.0) / self.scale
        )


def lines_of(text: str) -> list[str]:
    """Return the lines of words of plain or tagged text."""
    return [line for stanza in stanzas(text) for line in stanza.lines]
