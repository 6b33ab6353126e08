"""Length: texts within bounds, and that end by themselves."""

from typing import Literal

from pydantic import Field, model_validator

from coterie.align.rewards.interface import Corpus, Reward, RewardSettings, Sample, each


class Length(RewardSettings):
    """0 for texts within the bounds that ended, less for those beyond, −1 for those cut off."""

    kind: Literal["length"] = "length"
    least: int = Field(default=1, ge=0, description="fewest tokens")
    most: int | None = Field(default=None, ge=1, description="most tokens; None: any number")
    unended: float = Field(
        default=-1.0, ge=-1, le=0, description="of a text cut off at the longest length"
    )

    unit = "share of the bound missed"
    low, high = -1.0, 0.0

    @model_validator(mode="after")
    def _in_order(self) -> "Length":
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most={self.most} lies below least={self.least}")
        return self

    def build(self, corpus: Corpus) -> Reward:
        return each(self.of)

    def of(self, sample: Sample) -> float:
        """Return minus the tokens too few or too many, as a share of the bound, at least −1."""
        if not sample.ended and self.unended:
            return self.unended
        short = (self.least - sample.tokens) / max(self.least, 1)
        long = 0.0 if self.most is None else (sample.tokens - self.most) / self.most
        return -min(max(short, long, 0.0), 1.0)
