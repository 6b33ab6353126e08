"""How far a run has come: the few numbers that move with every step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """How far a run has come. All of it is in every checkpoint.

    Attributes:
        step: optimizer steps done; the data position too, for batches are a function of it.
        tokens: tokens read.
        train_seconds: time spent in steps alone, over all sessions.
        loss: of the latest step; None in a checkpoint where it was not finite.
        validation_loss: of an evaluation at this very step.
    """

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    loss: float | None = None
    validation_loss: float | None = None

    def advance(self, *, tokens: int, seconds: float, loss: float) -> None:
        """Take note of one more step."""
        self.step += 1
        self.tokens += tokens
        self.train_seconds += seconds
        self.loss = loss
        self.validation_loss = None
