"""Tuning from Python: what makes a preset fastest on this machine."""

from collections.abc import Callable, Mapping
from typing import Any

from coterie.api.given import layer_of, resolve
from coterie.benchmark.duel import LIMIT, Bench
from coterie.benchmark.tune import Tuning
from coterie.benchmark.tune import tune as tune_run
from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer
from coterie.train import RunSettings


def tune(
    preset: str,
    settings: Mapping[str, Any] | None = None,
    *,
    seconds: float = 4.0,
    limit: float = LIMIT,
) -> Tuning:
    """Measure what makes a run fastest here, and return the table and what to change.

        found = coterie.tune("quickstart", {"scale": "tiny"})
        if found.changes:  # empty where nothing is faster by more than chance
            Path("fast.yaml").write_text(found.overlay())

    Args:
        preset: a preset's name, or the path of a settings file.
        settings: what to change of it; `scale` picks one of its scales.
        seconds: for each thing that is tried, about.
        limit: seconds after which a thing is given up, compiling included (in the main thread).

    Raises:
        UserError: the run itself would be refused.
    """
    given = dict(settings or {})
    scale, mode = given.pop("scale", None), given.pop("mode", None)
    layers: list[Layer] = [layer_of(given)] if given else []
    resolved = resolve(preset, layers, scale, mode).settings
    return tune_settings(resolved, seconds, limit, lambda what: None)


def tune_settings(
    settings: RunSettings, seconds: float, limit: float, tell: Callable[[str], None]
) -> Tuning:
    """Measure what makes a run fastest here, telling what is tried next."""
    for name, value in (("seconds", seconds), ("limit", limit)):
        if not 0 < value < 1e6:
            raise UserError(f"{name}={value:g} is no time to measure for.", hint="Use 4, or 180.")
    bench = Bench(settings, seconds, limit, tell)
    if bench.rows < settings.train.batch_size:
        tell(f"Steps of {bench.rows} of {settings.train.batch_size} windows are timed.")
    return tune_run(
        bench.settings, bench, precision=bench.precision.name, device=bench.device, tell=tell
    )
