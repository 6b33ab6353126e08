"""Writing a checkpoint: one directory that is whole or not there.

step-00001000/
  model.safetensors      parameters and buffers, balance biases included
  optimizer.safetensors  momentum and moments, by parameter name
  state.json             step, tokens, random states, loss scale, clip history, losses
  config.yaml            the resolved settings of the run
  tokenizer.json         the tokenizer, unless the model came without one
  manifest.json          size and SHA-256 of each file above; written last

The directory is made under another name, flushed, and renamed, so a kill at any moment leaves the
earlier checkpoints as they were. Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coterie.checkpoint.layout import (
    CONFIG,
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
from coterie.checkpoint.tensors import save_tensors
from coterie.foundation import swap
from coterie.foundation.files import atomic_directory, sha256_file
from coterie.foundation.layers import dump_yaml
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import save_tokenizer


def save_checkpoint(
    root: Path | str,
    step: int,
    *,
    model: nn.Module,
    optimizer_state: Mapping[str, Tensor],
    state: Mapping[str, Any],
    settings: Settings,
    tokenizer: Tokenizer | None,
    keep: int | None = None,
) -> Path:
    """Write `root/step-XXXXXXXX` and remove checkpoints that need not be kept.

    Args:
        root: the run's directory of checkpoints.
        step: optimizer steps done.
        model: its parameters and persistent buffers are written.
        optimizer_state: tensors by name.
        state: anything else that must be kept, as JSON values; `validation_loss` in it, if not
            None, lets the best checkpoint be kept.
        settings: the resolved settings of the run; the decoder's lie under `model`.
        tokenizer: travels inside the checkpoint; None: the model has none.
        keep: how many of the newest to keep, and the best besides; None keeps all.

    Raises:
        UserError: the disk is full or not writable; nothing half-written stays.
    """
    root = Path(root)
    sweep(root)
    target = root / directory_name(step)
    with atomic_directory(target, replace=True) as partial:
        save_tensors(model_tensors(model), partial / MODEL)
        save_tensors({name: _plain(t) for name, t in optimizer_state.items()}, partial / OPTIMIZER)
        (partial / STATE).write_text(json.dumps({**state, "step": step}), encoding="utf-8")
        (partial / CONFIG).write_text(dump_yaml(settings), encoding="utf-8")
        if tokenizer is not None:
            save_tokenizer(tokenizer, partial / TOKENIZER)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(partial.iterdir())
        }
        manifest = {"format": FORMAT, "step": step, "files": files}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    if keep is not None:
        retain(root, keep)
    return target


def checkpoint_bytes(path: Path) -> int:
    """Return how much room a checkpoint takes on the disk, in bytes."""
    return sum(file.stat().st_size for file in path.iterdir())


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name; tied parameters appear once."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = _plain(tensor)
    return tensors


def _plain(tensor: Tensor) -> Tensor:
    """Return a copy that owns its memory, as the file format asks for."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def retain(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the one with the lowest validation loss."""
    found = list_checkpoints(root)
    kept = set(found[-keep:]) if keep > 0 else set()
    losses = {path: loss for path in found if (loss := _validation_loss(path)) is not None}
    if losses:
        kept.add(min(losses, key=lambda path: (losses[path], -step_of(path))))
    _remove(path for path in found if path not in kept)


def _validation_loss(path: Path) -> float | None:
    """Return the validation loss that a checkpoint recorded; None if unknown or unreadable."""
    try:
        loss = json.loads((path / STATE).read_text(encoding="utf-8")).get("validation_loss")
    except (OSError, ValueError):
        return None
    return loss if isinstance(loss, int | float) and loss == loss else None


def _remove(paths: Iterable[Path]) -> None:
    """Remove checkpoints so that a kill in between leaves none that looks whole but is not."""
    for path in paths:
        doomed = path.with_name(f".{path.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(root: Path) -> None:
    """Mend what a kill left behind: checkpoints half written, half removed, or moved aside.

    What another process is writing there now is left alone.
    """
    swap.sweep(root)
    for path in root.glob(".step-*.removed"):
        shutil.rmtree(path, ignore_errors=True)
