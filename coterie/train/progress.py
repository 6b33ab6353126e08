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
        best_loss: the validation loss that the next ones must better.
        stale: evaluations in a row that found none lower.
        plateaus: how often a schedule lowered the rate for that.
    """

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    loss: float | None = None
    validation_loss: float | None = None
    best_loss: float | None = None
    stale: int = 0
    plateaus: int = 0

    def advance(self, *, tokens: int, seconds: float, loss: float) -> None:
        """Take note of one more step."""
        self.step += 1
        self.tokens += tokens
        self.train_seconds += seconds
        self.loss = loss
        self.validation_loss = None

    def evaluated(self, loss: float, least: float = 0.0) -> None:
        """Take note of a validation loss; a lower one counts if it is so by more than `least`."""
        self.validation_loss = loss
        if self.best_loss is None or loss < self.best_loss - least:
            self.best_loss, self.stale = loss, 0
        else:
            self.stale += 1
