"""Numbers that follow a run's steps: a rate that grows, a length in stages.

They count in steps and not in shares of the run: a batch stays a pure function of its number, so
that a run trained for longer has read the same until then.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from coterie.foundation.settings import Settings, union


class Linear(Settings):
    """A straight line from `first` to `last`, which it keeps."""

    kind: Literal["linear"] = "linear"
    first: float = Field(description="the value up to step `begin`")
    last: float = Field(description="the value from step `end` on")
    begin: int = Field(default=0, ge=0, description="the step at which it begins to change")
    end: int = Field(ge=1, description="the step from which it stays")

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end <= self.begin:
            raise ValueError(f"end={self.end} must come after begin={self.begin}")
        return self

    @property
    def settled(self) -> int:
        """The step from which the value stays."""
        return self.end

    @property
    def ends(self) -> tuple[float, ...]:
        """The values between which all others lie."""
        return (self.first, self.last)

    def at(self, step: int) -> float:
        """Return the value at a step, counted from 0."""
        share = (step - self.begin) / (self.end - self.begin)
        return self.first + (self.last - self.first) * min(max(share, 0.0), 1.0)


class Stairs(Settings):
    """One value after the other."""

    kind: Literal["steps"] = "steps"
    values: tuple[float, ...] = Field(min_length=1, description="in their order")
    begins: tuple[int, ...] = Field(description="the step from which each value holds; the first 0")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        begins = self.begins
        if len(begins) != len(self.values):
            raise ValueError(f"{len(self.values)} values need as many steps, not {len(begins)}")
        if begins[0] != 0 or list(begins) != sorted(set(begins)):
            raise ValueError("begins must be 0 and then rise")
        return self

    @property
    def settled(self) -> int:
        """The step from which the value stays."""
        return self.begins[-1]

    @property
    def ends(self) -> tuple[float, ...]:
        """All values."""
        return self.values

    def at(self, step: int) -> float:
        """Return the value at a step, counted from 0."""
        return self.values[sum(begin <= step for begin in self.begins) - 1]


Ramp = Annotated[Linear | Stairs, union(Linear, Stairs)] | float


def value_at(ramp: Ramp, step: int) -> float:
    """Return what a number or a ramp is at a step."""
    return ramp.at(step) if isinstance(ramp, Linear | Stairs) else ramp


def _a_share(ramp: Ramp) -> Ramp:
    ends = ramp.ends if isinstance(ramp, Linear | Stairs) else (ramp,)
    if min(ends) < 0 or max(ends) > 1:
        raise ValueError("a share lies between 0 and 1")
    return ramp


Share = Annotated[Ramp, AfterValidator(_a_share)]
"""A part of something, from 0 to 1: a number, or one that follows the steps."""
