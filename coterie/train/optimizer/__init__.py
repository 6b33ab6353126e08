"""Optimizers: a closed union of settings, each of which builds what moves the parameters.

An optimizer has `step(step, multiplier)`, `state()` and `load_state(tensors)`, and its
peak `learning_rate`. It never clips and never reads a schedule: the step does both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from torch import Tensor

from coterie.foundation.settings import union
from coterie.train.optimizer.adafactor import Adafactor
from coterie.train.optimizer.adamw import AdamW
from coterie.train.optimizer.adamw8bit import AdamW8bit
from coterie.train.optimizer.groups import ROLES, Layerwise, RoleParameter
from coterie.train.optimizer.muon import Muon

OptimizerSettings = Annotated[
    Muon | AdamW | AdamW8bit | Adafactor, union(Muon, AdamW, AdamW8bit, Adafactor)
]


class Optimizer(Protocol):
    """What a step needs of an optimizer."""

    learning_rate: float

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates.

        `step` counts from 0, for whatever changes over the run besides the learning rate.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything that must be kept to go on later, by parameter name."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take a state back; return the keys that were used."""
        ...


__all__ = [
    "ROLES",
    "Adafactor",
    "AdamW",
    "AdamW8bit",
    "Layerwise",
    "Muon",
    "Optimizer",
    "OptimizerSettings",
    "RoleParameter",
]
