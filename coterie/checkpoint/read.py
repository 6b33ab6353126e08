"""Reading checkpoints: find the newest sound one, name the damaged, refuse the foreign.

Every file is hashed before it is used. A checkpoint that is torn, truncated or altered is reported
by name with what is wrong, and the one before it is offered instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from coterie.checkpoint.layout import (
    CONFIG,
    FILES,
    FORMAT,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    TOKENIZER,
    directory_name,
    list_checkpoints,
    step_of,
)
from coterie.foundation.errors import CheckpointError, nearest
from coterie.foundation.files import sha256_file
from coterie.foundation.layers import read_settings_file
from coterie.foundation.runs import RunDirectory
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import load_tokenizer

OnDamaged = Callable[[Path, str], None]


@dataclass(frozen=True)
class Checkpoint:
    """What a sound checkpoint holds, read into memory on the CPU."""

    path: Path
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    settings: dict[str, Any]
    tokenizer: Tokenizer | None


def find_problem(path: Path | str) -> str | None:
    """Return what is wrong with a checkpoint, or None if every file is as it was written."""
    path = Path(path)
    try:
        manifest = read_manifest(path)
        files = manifest["files"]
        if manifest["format"] > FORMAT:
            return f"it has format {manifest['format']}, newer than this version reads ({FORMAT})"
        if missing := [name for name in FILES if name not in files]:
            return f"its manifest does not list {missing[0]}"
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if (size := file.stat().st_size) != expected["bytes"]:
                return f"{name} has {size:,} bytes instead of {expected['bytes']:,}"
            if sha256_file(file) != expected["sha256"]:
                return f"{name} does not match its checksum"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest: its format, step, and each file's size and SHA-256."""
    return json.loads((path / MANIFEST).read_text(encoding="utf-8"))


def find_checkpoint(
    run: RunDirectory | Path | str,
    step: int | None = None,
    on_damaged: OnDamaged | None = None,
) -> Path:
    """Return the newest sound checkpoint of a run, or the one of a given step.

    Args:
        run: a run, or the path of its directory of checkpoints.
        step: ask for this one; then damage is an error instead of a reason to look further.
        on_damaged: told the path and the problem of each damaged checkpoint passed over.

    Raises:
        CheckpointError: there is none, or all (or the one asked for) are damaged.
    """
    root = run.checkpoints if isinstance(run, RunDirectory) else Path(run)
    found = list_checkpoints(root)
    if step is not None:
        return _find_step(root, found, step)
    problems: list[str] = []
    for path in reversed(found):
        problem = find_problem(path)
        if problem is None:
            return path
        problems.append(f"  {path.name}: {problem}")
        if on_damaged is not None:
            on_damaged(path, problem)
    if problems:
        raise CheckpointError(
            f"All checkpoints in {root} are damaged:\n" + "\n".join(problems),
            hint="Train the run again under another --name, or restore the files from a copy.",
        )
    raise CheckpointError(
        f"There is no checkpoint in {root}.", hint="A run writes its first one while it trains."
    )


def _find_step(root: Path, found: list[Path], step: int) -> Path:
    path = root / directory_name(step)
    if path not in found:
        known = nearest(str(step), [str(step_of(other)) for other in found])
        raise CheckpointError(f"There is no checkpoint of step {step} in {root}; {known}")
    require_sound(path)
    return path


def require_sound(path: Path) -> None:
    """Raise a `CheckpointError` that names the damage, if there is any."""
    if problem := find_problem(path):
        raise CheckpointError(
            f"The checkpoint {path} is damaged: {problem}.",
            hint="Use another of the run's checkpoints, or restore the files from a copy.",
        )


def load_checkpoint(path: Path | str, *, verify: bool = True) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: its directory.
        verify: hash every file first; switch off only right after `find_checkpoint` did.

    Raises:
        CheckpointError: it is missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    if verify:
        require_sound(path)
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    return Checkpoint(
        path=path,
        step=state["step"],
        model=load_file(path / MODEL),
        optimizer=load_file(path / OPTIMIZER),
        state=state,
        settings=read_settings(path),
        tokenizer=read_tokenizer(path),
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Return the resolved settings that a checkpoint was trained with, as plain values."""
    return read_settings_file(path / CONFIG)


def read_tokenizer(path: Path) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint; None if its model came without one."""
    if TOKENIZER not in read_manifest(path)["files"]:
        return None
    return load_tokenizer(path / TOKENIZER)


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy a checkpoint's tensors into a model of the same make.

    Raises:
        CheckpointError: names or shapes differ; the message lists the first of each.
    """
    own = model.state_dict(keep_vars=True)
    given = dict(tensors)
    by_identity: dict[int, str] = {}
    for name, tensor in own.items():  # a tied parameter was written under its first name
        first = by_identity.setdefault(id(tensor), name)
        if name not in given and first in given:
            given[name] = given[first]
    problems = _differences(own, given)
    if problems:
        raise CheckpointError(
            f"The checkpoint {source} belongs to another model:\n  " + "\n  ".join(problems),
            hint="Use the settings it was trained with; they lie beside it in config.yaml.",
        )
    model.load_state_dict(given)


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return sentences on what two sets of named tensors do not share."""
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    reshaped = [
        f"{name} has shape {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    problems = reshaped[:5]
    if len(reshaped) > 5:
        problems.append(f"... and {len(reshaped) - 5} more of another shape")
    if missing:
        problems.append(f"{len(missing)} tensors are missing, the first {missing[0]}")
    if unknown:
        problems.append(f"{len(unknown)} tensors are unknown here, the first {unknown[0]}")
    return problems
