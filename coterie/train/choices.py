"""What a run chooses by measuring, for itself: the type of its products, and whether to compile.

Which is faster differs by processor and by shape, so the run's own forward and backward pass is
timed, not a bare product: in a small model the casts eat what the products gain. A choice is kept
three times: the times themselves in the cache folder, per machine, threads, torch and shapes; the
reason in the run's record; and what was chosen in every checkpoint, so that a run goes on as it
began, bit for bit, whatever would be measured now. Another kind of device chooses anew.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field

from coterie.batch import TokenBatch
from coterie.checkpoint import list_checkpoints, read_state
from coterie.checkpoint.state import ChoicesState
from coterie.foundation.errors import CheckpointError, UserError
from coterie.foundation.files import sha256_bytes, write_json_atomic
from coterie.foundation.records import read_model
from coterie.foundation.runs import RunDirectory, cache_root
from coterie.model import count
from coterie.train.flops import step_flops
from coterie.train.machine import describe_machine
from coterie.train.precision import Precision, resolve_precision
from coterie.train.settings import RunSettings
from coterie.train.turns import Clock, in_turns, ratio

FEWEST_FLOPS = 1e12
"""A run of fewer operations takes seconds: whatever was gained, measuring would cost more."""
_WORTH = 1.05  # how much faster bfloat16 must be; else the more exact type is taken
HOPELESS = 0.5  # a bare product slower than this share of float32's: the model is not tried
_SIDE = 256
_SECONDS = 1.0
_PASS_FLOPS, _PASS_TOKENS = 1e10, 256


class _Times(BaseModel):
    seconds: dict[str, float] = Field(min_length=1)


def remembered(
    what: str, settings: RunSettings, device: torch.device, measure: Callable[[], Any] | None
) -> dict[str, float] | None:
    """Return the seconds measured on this machine at these shapes, measured now if they never were.

    Args:
        what: was measured.
        settings: the run's, vocabulary included.
        device: where it computes.
        measure: returns the seconds by name; None: what is not known is None.
    """
    path = _place(what, settings, device)
    with contextlib.suppress(OSError, UserError):  # missing or damaged: measured again
        return read_model(_Times, path).seconds
    if measure is None:
        return None
    seconds = measure()
    remember(what, settings, device, seconds)
    return seconds


def remember(
    what: str, settings: RunSettings, device: torch.device, seconds: Mapping[str, float]
) -> None:
    """Keep what was measured in the cache folder, if that can be written to."""
    about = {"measured": time.strftime("%F %T"), **describe_machine(device)}
    with contextlib.suppress(OSError, ValueError):
        write_json_atomic(_place(what, settings, device), {"seconds": dict(seconds), **about})


def _place(what: str, settings: RunSettings, device: torch.device) -> Path:
    """Return the file for a machine, its threads, its torch, and the shapes of a run."""
    train = settings.train
    about = {
        **describe_machine(device), "device": device.type, "rows": train.micro_batch_size,
        "checkpointing": train.activation_checkpointing, "model": settings.model.model_dump(),
        "objective": train.objective.model_dump(),
    }  # fmt: skip
    if train.offload.activations:
        about["offload"] = True
    if what == "compile" and train.compile_mode != "default":
        about["mode"] = train.compile_mode
    digest = sha256_bytes(json.dumps(about, sort_keys=True, default=str).encode())[:16]
    return cache_root() / "choices" / f"{what}-{digest}.json"


def kept_choices(run: RunDirectory) -> ChoicesState | None:
    """Return what the newest readable checkpoint of a run says was chosen; None: nothing yet.

    Checkpoints of earlier versions say nothing: then, on a CPU, it was float32 and not compiled.
    """
    for path in reversed(list_checkpoints(run.checkpoints)):
        with contextlib.suppress(CheckpointError):
            state = read_state(path)
            if state.choices is None and state.data is not None:
                return ChoicesState(device="cpu", precision="float32", compile=False)
            return state.choices
    return None


def choose_precision(
    settings: RunSettings,
    device: torch.device,
    kept: ChoicesState | None = None,
    rehearse: Callable[[Precision], object] | None = None,
    clock: Clock = time.perf_counter,
) -> Precision:
    """Return the precision of a run, measured where it says `auto` on a CPU.

    Args:
        settings: the run's, vocabulary included.
        device: where it computes.
        kept: what the run chose when it began, if it is resumed.
        rehearse: computes a pass of the model in a precision; None: nothing is measured now.
        clock: seconds since some moment.
    """
    wanted = settings.train.precision
    if wanted == "auto" and kept is not None and kept.device == device.type:
        return Precision(device, kept.precision, "as when the run began")
    plain = resolve_precision(wanted, device)
    if wanted != "auto" or device.type != "cpu":
        return plain
    if step_flops(settings) * settings.train.steps < FEWEST_FLOPS:
        return Precision(device, "float32", "the run is too short for measuring to pay")
    half = resolve_precision("bfloat16", device)

    def measure() -> dict[str, float]:
        assert rehearse is not None
        return measure_passes(plain, half, rehearse, clock)

    seconds = remembered("precision", settings, device, measure if rehearse else None)
    if seconds is None or "bfloat16" not in seconds:
        return Precision(device, "float32", "auto measures when the run begins")
    return _told(device, seconds)


def _told(device: torch.device, seconds: Mapping[str, float]) -> Precision:
    faster = seconds["float32"] / seconds["bfloat16"]
    what = "forward and backward" if "product" not in seconds else "a product"
    if faster >= _WORTH and "product" not in seconds:
        reason = f"{what} ran {faster:.1f} times as fast as in float32 here"
        return Precision(device, "bfloat16", reason)
    return Precision(
        device, "float32", f"{what} ran {faster:.2g} times as fast in bfloat16 here, measured"
    )


def measure_passes(
    plain: Precision,
    half: Precision,
    rehearse: Callable[[Precision], object],
    clock: Clock = time.perf_counter,
) -> dict[str, float]:
    """Return the seconds of a pass in each precision: the typical time in the first one's terms.

    Where a bare product in the second is hopelessly slow, a processor without units for it, that
    alone is told, as `product`: a pass of the model might take minutes.
    """
    bare = product_times(plain, half, clock)
    if bare[plain.name] < HOPELESS * bare[half.name]:
        return {**bare, "product": float(_SIDE)}
    ways = {each.name: lambda each=each: rehearse(each) for each in (plain, half)}
    taken = in_turns(ways, _SECONDS, clock)
    fastest = min(taken[plain.name])
    return {
        plain.name: fastest,
        half.name: fastest / ratio(taken[plain.name], taken[half.name]),
    }


def product_times(
    plain: Precision, half: Precision, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Return the seconds of a bare product in each precision, in the first one's terms."""
    sides = {
        each.name: torch.ones(_SIDE, _SIDE, dtype=each.dtype, device=each.device)
        for each in (plain, half)
    }
    bare = in_turns({name: lambda a=a: a @ a for name, a in sides.items()}, 0.05, clock)
    fastest = min(bare[plain.name])
    return {plain.name: fastest, half.name: fastest / ratio(bare[plain.name], bare[half.name])}


def short_batch(settings: RunSettings, batch: TokenBatch) -> TokenBatch:
    """Return what a measurement reads: a micro-batch, or as much of it as takes a moment.

    Args:
        settings: the run's, vocabulary included.
        batch: of a whole step.
    """
    length, train = settings.row_length, settings.train
    per_token = count(settings.model).training_flops_per_token(length)
    tokens = max(_PASS_TOKENS, int(_PASS_FLOPS / max(per_token, 1)))
    rows = min(max(tokens // length, 1), train.micro_batch_size)
    return batch.part(rows, min(tokens, length))
