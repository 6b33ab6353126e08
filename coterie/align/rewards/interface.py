"""What a reward is asked, what it answers, and what all of them have in common.

A reward judges texts, never models: what it needs of a model, such as how likely the frozen
reference finds a text, comes with the sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

from pydantic import Field, model_validator

from coterie.foundation.errors import TrainingError
from coterie.foundation.printable import printable
from coterie.foundation.settings import Settings


@dataclass(frozen=True)
class Sample:
    """A text that a model wrote.

    Attributes:
        prompt: what it goes on from.
        text: what was written, without what ended it.
        ended: whether it came to an end by itself, and not at the longest length.
        tokens: how many were written.
        reference: log-probability that the frozen reference gives the text, nats per token; None
            where there is no reference.
    """

    prompt: str
    text: str
    ended: bool = True
    tokens: int = 0
    reference: float | None = None

    def shown(self, width: int = 160) -> str:
        """Return the sample for an error: prompt and text in one line."""
        text = printable(f"{self.prompt[-40:]} → {self.text}".replace("\n", "⏎"), "")
        return text if len(text) <= width else text[:width] + "…"

    @property
    def lines(self) -> str:
        """The text from the beginning of the line that it begins in."""
        return self.prompt.rpartition("\n")[2] + self.text


@dataclass(frozen=True, eq=False)
class Corpus:
    """The text that the model was trained on, read when a reward first asks for it."""

    read: Callable[[], str] = field(default=lambda: "")

    @cached_property
    def text(self) -> str:
        return self.read()


class Reward(Protocol):
    """Judges texts; what a text gets may depend on those it is judged beside."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return one number for each sample.

        Raises:
            RewardError: a sample cannot be judged.
        """
        ...


class RewardError(TrainingError):
    """A reward that gave no usable numbers; names the sample."""


class RewardSettings(Settings):
    """What all rewards have in common.

    Attributes:
        unit: of what the reward returns.
        low: the least that it returns.
        high: the most.
    """

    weight: float = Field(default=1.0, description="factor in the sum; below 0 it is a cost")
    clip: tuple[float, float] | None = Field(
        default=None, description="least and most that it counts, before the weight"
    )
    normalise: bool = Field(
        default=False,
        description="count standard deviations from the mean of the texts judged together",
    )

    unit: ClassVar[str] = "share"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    @model_validator(mode="after")
    def _ordered_clip(self) -> "RewardSettings":
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip wants [least, most], got {list(self.clip)}")
        return self

    def build(self, corpus: Corpus) -> Reward:
        """Return what judges.

        Raises:
            UserError: it cannot, with these settings.
        """
        raise NotImplementedError


def each(judge: Callable[[Sample], float]) -> Reward:
    """Return a reward that judges every sample by itself."""
    return lambda samples: [judge(sample) for sample in samples]
