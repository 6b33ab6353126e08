"""Schedules: the learning rate of a step as a share of its peak, a pure function of the step.

Every member returns `multiplier(step, steps)` for steps 0, 1, ..., steps - 1 of a run of `steps`.
Warm-up and decay are shares of the run, so that a run made longer keeps its shape. Because a
schedule has no state, its position after a resume is the step itself; `plateau` alone also goes by
how often the validation loss has stood still, which a run counts.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from coterie.foundation.settings import Settings, union

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Schedule(Settings):
    """What every schedule shares: a linear warm-up."""

    judges: ClassVar[bool] = False  # whether it goes by the validation loss
    warmup: Share = Field(
        default=0.02, description="share of the run in which the rate rises linearly to its peak"
    )

    def multiplier(self, step: int, steps: int) -> float:
        """Return the learning rate of a step (counted from 0) as a share of the peak."""
        warmup_steps = self.warmup * steps
        rising = (step + 1) / (warmup_steps + 1)  # the first step moves already
        return min(1.0, rising) * self.after_warmup(step, steps)

    def lowered(self, plateaus: int) -> float:
        """Return what the rate is multiplied by after the loss has stood still so many times."""
        return 1.0

    def stands_still(self, stale: int) -> bool:
        """Return whether so many evaluations in a row without a better loss are one time more."""
        return False

    def after_warmup(self, step: int, steps: int) -> float:
        """Return the multiplier without the warm-up."""
        raise AssertionError("a schedule must define after_warmup")

    def progress(self, step: int, steps: int) -> float:
        """Return how far the part after the warm-up has come, from 0 to 1."""
        start = self.warmup * steps
        return min(1.0, max(0.0, (step - start) / max(1.0, steps - start)))


class Constant(_Schedule):
    """The peak, after the warm-up, to the end."""

    kind: Literal["constant"] = "constant"

    def after_warmup(self, step: int, steps: int) -> float:
        return 1.0


class Cosine(_Schedule):
    """Half a cosine wave from the peak to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    final: Share = Field(default=0.1, description="the last rate as a share of the peak")

    def after_warmup(self, step: int, steps: int) -> float:
        wave = 0.5 * (1.0 + math.cos(math.pi * self.progress(step, steps)))
        return self.final + (1.0 - self.final) * wave


class Linear(_Schedule):
    """A straight line from the peak to `final`."""

    kind: Literal["linear"] = "linear"
    final: Share = Field(default=0.0, description="the last rate as a share of the peak")

    def after_warmup(self, step: int, steps: int) -> float:
        return 1.0 - (1.0 - self.final) * self.progress(step, steps)


class WarmupStableDecay(_Schedule):
    """The peak for most of the run, then a straight line to `final` in its last part.

    Hu et al. 2024 (MiniCPM), arXiv:2404.06395. A checkpoint from the stable part can be trained on
    for longer without having been cooled down.
    """

    kind: Literal["wsd"] = "wsd"
    decay: Share = Field(default=0.2, description="share of the run, at its end, that decays")
    final: Share = Field(default=0.0, description="the last rate as a share of the peak")

    def after_warmup(self, step: int, steps: int) -> float:
        decay_steps = self.decay * steps
        remaining = steps - step
        if decay_steps <= 0 or remaining >= decay_steps:
            return 1.0
        return self.final + (1.0 - self.final) * remaining / decay_steps


class WarmRestarts(_Schedule):
    """Cosine waves one after another (SGDR; Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    kind: Literal["restarts"] = "restarts"
    cycles: int = Field(default=3, ge=1, description="waves in the run")
    growth: float = Field(default=2.0, gt=0, description="a wave's length over the one before")
    peaks: Share = Field(default=1.0, description="a wave's peak over the one before")
    final: Share = Field(default=0.0, description="each wave's last rate as a share of its peak")

    def after_warmup(self, step: int, steps: int) -> float:
        lengths = [self.growth**cycle for cycle in range(self.cycles)]
        place = self.progress(step, steps) * sum(lengths)
        cycle = 0
        while cycle < self.cycles - 1 and place >= lengths[cycle]:
            place -= lengths[cycle]
            cycle += 1
        wave = 0.5 * (1.0 + math.cos(math.pi * min(1.0, place / lengths[cycle])))
        return self.peaks**cycle * (self.final + (1.0 - self.final) * wave)


class Plateau(_Schedule):
    """The peak until the validation loss stands still, then `factor` times the rate before."""

    judges: ClassVar[bool] = True
    kind: Literal["plateau"] = "plateau"
    factor: float = Field(default=0.5, gt=0, lt=1, description="the next rate over the one before")
    patience: int = Field(default=2, ge=1, description="evaluations without a better loss")
    final: Share = Field(default=0.01, description="the least rate as a share of the peak")

    def after_warmup(self, step: int, steps: int) -> float:
        return 1.0

    def lowered(self, plateaus: int) -> float:
        return max(self.final, self.factor**plateaus)

    def stands_still(self, stale: int) -> bool:
        return stale > 0 and stale % self.patience == 0


Schedule = Annotated[
    Cosine | WarmupStableDecay | Linear | Constant | WarmRestarts | Plateau,
    union(Cosine, WarmupStableDecay, Linear, Constant, WarmRestarts, Plateau),
]
