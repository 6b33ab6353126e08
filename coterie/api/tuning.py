"""Tuning from Python: what makes a preset fastest on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coterie.api.given import layer_of, resolve
from coterie.benchmark.duel import Bench
from coterie.benchmark.tune import Tuning
from coterie.benchmark.tune import tune as tune_run
from coterie.foundation.layers import Layer
from coterie.train import RunSettings


def tune(preset: str, settings: Mapping[str, Any] | None = None, *, seconds: float = 4.0) -> Tuning:
    """Measure what makes a run fastest here, and return the table and what to change.

        found = coterie.tune("quickstart", {"scale": "tiny"})
        Path("fast.yaml").write_text(found.overlay())

    Args:
        preset: a preset's name, or the path of a settings file.
        settings: what to change of it; `scale` picks one of its scales.
        seconds: for each thing that is tried, about.

    Raises:
        UserError: the run itself would be refused.
    """
    given = dict(settings or {})
    scale = given.pop("scale", None)
    layers: list[Layer] = [layer_of(given)] if given else []
    return tune_settings(resolve(preset, layers, scale).settings, seconds, lambda what: None)


def tune_settings(settings: RunSettings, seconds: float, tell: Callable[[str], None]) -> Tuning:
    """Measure what makes a run fastest here, telling what is tried next."""
    bench = Bench(settings, seconds, tell)
    if bench.rows < settings.train.batch_size:
        tell(f"Steps of {bench.rows} of {settings.train.batch_size} windows are timed.")
    return tune_run(
        bench.settings, bench, precision=bench.precision.name, device=bench.device, tell=tell
    )
