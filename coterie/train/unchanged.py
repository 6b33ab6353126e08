"""What a resumed run may change: its settings are held against the sound copy in its checkpoint.

A run's config.yaml lies open to everybody. What decides the weights must be as it was when the
checkpoint was written, unless it was named on purpose: by a word of this call, or by one of a call
before, whose whole config.yaml the record vouches for. What decides no weight is only told.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from coterie.checkpoint.layout import CONFIG
from coterie.foundation.errors import CheckpointError
from coterie.foundation.event_log import read_events
from coterie.foundation.files import sha256_file
from coterie.foundation.runs import RunDirectory
from coterie.train.events import RunStarted
from coterie.train.settings import RunSettings

_WATCHING = ("evaluate_every", "checkpoint_every", "checkpoint_first", "keep",
             "keep_every", "save_in_background", "sample_every",
             "prompts", "log_every", "load_every", "health_every", "watch_every", "trackers",
             "device", "activation_checkpointing", "offload", "threads", "prefetch",
             "cuda_graph")  # fmt: skip
HARMLESS = ("description", "sample", "parallel", *(f"train.{name}" for name in _WATCHING))
PLACES = ("data.source", "data.sources", "data.store", "data.column", "tokenizer.path")
"""Where the text and the tokenizer lie: free, for what lies there is held against fingerprints."""

LENGTH = ("train.steps", "train.epochs", "train.epoch_steps")
"""How long a run is: a resumed one may be made longer."""

_MISSING = object()


def last_start(run: RunDirectory) -> RunStarted | None:
    """Return how the run was started or resumed for the last time, as its record tells."""
    if not run.events.is_file():
        return None
    starts = [event for event in read_events(run.events) if isinstance(event, RunStarted)]
    return starts[-1] if starts else None


def is_as_recorded(run: RunDirectory, start: RunStarted | None) -> bool:
    """Whether the run's config.yaml is, to the last byte, the one its record vouches for."""
    try:
        return start is not None and start.config_sha256 == sha256_file(run.config)
    except OSError:
        return False


def check_unchanged(
    own: RunSettings, kept: RunSettings, checkpoint: Path, run: RunDirectory, free: Collection[str]
) -> list[str]:
    """Return sentences on what a resumed run does otherwise than its checkpoint was trained.

    Args:
        own: the settings that it shall go on with.
        kept: those in the checkpoint.
        checkpoint: the path of that.
        run: the run.
        free: keys that may differ, with all below them, besides the harmless ones.

    Raises:
        CheckpointError: something else differs that decides the weights.
    """
    changed = list(_differences(own.model_dump(mode="json"), kept.model_dump(mode="json")))
    allowed = (*HARMLESS, *PLACES, *free)
    refused = [each for each in changed if not _covers(allowed, each[0])]
    if refused:
        lines = "\n".join(f"  {key}: {new!r} there, {old!r} here" for key, new, old in refused[:5])
        source = shlex.quote(str(checkpoint / CONFIG))
        raise CheckpointError(
            f"{run.config} is not what {checkpoint.name} was trained with:\n{lines}",
            hint=f"Restore it: cp {source} {shlex.quote(str(run.config))}   or start a new run; "
            "another length is named as a word: train.steps=N or train.epochs=N",
        )
    return [
        f"{key} is {new!r} from here on; it was {old!r}."
        for key, new, old in changed
        if new is not None or key not in LENGTH  # the other length, which replaces it, is told
    ]


def _covers(keys: Collection[str], key: str) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def _differences(new: Any, old: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, new, old) of every value that differs; None stands for what is not there."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        for name in dict.fromkeys([*new, *old]):
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(new.get(name, _MISSING), old.get(name, _MISSING), inner)
    elif new != old:
        yield key, None if new is _MISSING else new, None if old is _MISSING else old
