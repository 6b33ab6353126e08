"""Rows that change their length while a run trains, at as many tokens a step.

Short rows first teach what is near sooner than long ones (Li et al. 2022, arXiv:2108.06084). Which
length a step has is a function of its number, so a resumed run needs only that, as ever.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass

from pydantic import Field

from coterie.data.ramp import Linear, Ramp, Stairs, value_at
from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import Settings


class Curriculum(Settings):
    """How long the rows of a step are; those of an evaluation are as long as the context."""

    length: Ramp = Field(description="tokens of a row: a number, linear, or steps")
    multiple: int = Field(default=8, ge=1, description="what lengths are rounded down to")

    def lengths(self, context: int) -> list[tuple[int, int]]:
        """Return (step, length) of each step at which the length changes, the first 0.

        Raises:
            SettingsError: a length is none, or longer than the context.
        """
        ramp, changes = self.length, []
        settled = ramp.settled if isinstance(ramp, Linear | Stairs) else 0
        for step in range(settled + 1):
            length = int(value_at(ramp, step)) // self.multiple * self.multiple
            if not 0 < length <= context:
                raise SettingsError(
                    f"data.curriculum: rows of step {step:,} would have {length:,} tokens; they "
                    f"may have 1 to model.context={context:,}.",
                    hint="Set other lengths, data.curriculum.multiple, or raise model.context.",
                )
            if not changes or changes[-1][1] != length:
                changes.append((step, length))
        return changes


@dataclass(frozen=True)
class Stage:
    """Steps whose batches have one shape.

    Attributes:
        first: its first step.
        context: tokens of a row.
        rows: of a step, over all ranks.
        before: steps with rows of this length in earlier stages.
    """

    first: int
    context: int
    rows: int
    before: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that a step reads."""
        return self.rows * self.context


class Stages:
    """The shapes of a run's batches, step by step."""

    def __init__(
        self, context: int, batch_size: int, curriculum: Curriculum | None = None, unit: int = 1
    ) -> None:
        """Divide a run into stages; each step reads as many tokens as full rows would, or less.

        Args:
            context: the most tokens of a row.
            batch_size: how many such rows a step reads.
            curriculum: how long rows are; None: as long as that.
            unit: what the number of rows must be a multiple of.

        Raises:
            SettingsError: a length does not fit.
        """
        lengths = [(0, context)] if curriculum is None else curriculum.lengths(context)
        self.budget, self.unit = context * batch_size, unit
        stages: list[Stage] = []
        steps: Counter[int] = Counter()
        for first, length in lengths:
            if stages:
                steps[stages[-1].context] += first - stages[-1].first
            rows = batch_size if length == context else self.budget // length // unit * unit
            stages.append(Stage(first, length, rows, steps[length]))
        self.stages = tuple(stages)
        self._firsts = [stage.first for stage in stages]

    def of(self, step: int) -> Stage:
        """Return the stage of a step."""
        return self.stages[bisect_right(self._firsts, step) - 1]

    def until(self, steps: int) -> list[tuple[Stage, int]]:
        """Return the stages that so many steps come to, and how many steps of each."""
        ends = [*self._firsts[1:], max(steps, self._firsts[-1])]
        pairs = zip(self.stages, ends, strict=True)
        return [(s, min(end, steps) - s.first) for s, end in pairs if s.first < steps]

    def tokens(self, steps: int) -> int:
        """Return how many tokens so many steps read."""
        return sum(stage.tokens * count for stage, count in self.until(steps))

    def told(self, steps: int) -> str:
        """Return in words how long rows are, and how far a step falls short of its tokens."""
        found = self.until(steps)
        parts = [
            f"{stage.context} from step {stage.first:,} ({stage.rows} rows)" for stage, _ in found
        ]
        short = max(1 - stage.tokens / self.budget for stage, _ in found)
        missing = (
            "" if not short else f"; up to {short:.1%} fewer tokens than {self.budget:,} a step"
        )
        return ", ".join(parts) + missing
