"""The numbers of an event under the names that every tracker shows them by."""

from __future__ import annotations

import math

from coterie.foundation.events import Evaluated, Event, LoadMeasured, StepDone


def numbers_of(event: Event) -> dict[str, float]:
    """Return the numbers that an event tells, by a slash-separated name; empty for most kinds."""
    if isinstance(event, StepDone):
        numbers = {
            "train/loss": event.loss,
            "train/learning_rate": event.learning_rate,
            "train/gradient_norm": event.gradient_norm,
            "speed/tokens_per_second": event.tokens_per_second,
            "speed/step_seconds": event.seconds,
        }
        if event.mfu is not None:
            numbers["speed/mfu"] = event.mfu
        if event.memory_bytes is not None:
            numbers["memory/bytes"] = float(event.memory_bytes)
        return numbers | {f"auxiliary/{name}": value for name, value in event.auxiliary.items()}
    if isinstance(event, Evaluated):
        numbers = {f"{event.split}/loss": event.loss}
        if event.nats_per_character is not None:
            numbers[f"{event.split}/nats_per_character"] = event.nats_per_character
        return numbers
    if isinstance(event, LoadMeasured):
        return {f"load/layer_{each.layer}_max_over_mean": _imbalance(each.load)
                for each in event.layers}  # fmt: skip
    return {}


def _imbalance(load: tuple[int, ...]) -> float:
    """Return the largest load over the mean load: 1 is even."""
    total = sum(load)
    return max(load) * len(load) / total if total else math.nan
