"""Writing a checkpoint: one directory that is whole or not there.

step-00001000/
  model.safetensors      parameters and buffers, balance biases included
  optimizer.safetensors  momentum and moments, by parameter name
  state.json             step, tokens, random states, loss scale, clip history, losses
  config.yaml            the resolved settings of the run
  tokenizer.json         the tokenizer, unless the model came without one
  manifest.json          size and SHA-256 of each file above and of itself; written last

The directory is made under another name, flushed, and renamed, so a kill at any moment leaves the
earlier checkpoints as they were. Nothing is ever pickled.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coterie.checkpoint.layout import CONFIG, MODEL, OPTIMIZER, STATE, TOKENIZER, directory_name
from coterie.checkpoint.manifest import FileRecord, Manifest, write_manifest
from coterie.checkpoint.retain import make_room, remember, retain, sweep
from coterie.checkpoint.state import complete_state
from coterie.checkpoint.tensor_file import save_tensors
from coterie.checkpoint.tensors import is_finite, model_tensors
from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.files import atomic_directory, sha256_file
from coterie.foundation.layers import dump_yaml
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import save_tokenizer


def save_checkpoint(
    root: Path | str,
    step: int,
    *,
    model: nn.Module | Mapping[str, Tensor],
    optimizer_state: Mapping[str, Tensor],
    state: Mapping[str, Any],
    settings: Settings,
    tokenizer: Tokenizer | None,
    run: str | None = None,
    keep: int | None = None,
    keep_every: int | None = None,
) -> Path:
    """Write `root/step-XXXXXXXX` and remove checkpoints that need not be kept.

    Args:
        root: the run's directory of checkpoints.
        step: optimizer steps done.
        model: its parameters and persistent buffers are written; or they themselves, by name.
        state: the fields of `State`, as JSON values; those left out are as before the first step.
            `validation_loss` in it, if not None, lets the best checkpoint be kept.
        settings: the resolved settings of the run; the decoder's lie under `model`.
        tokenizer: travels inside the checkpoint; None: the model has none.
        run: a name that all checkpoints of one training share.
        keep: how many of the newest to keep, and the best besides; None keeps all.
        keep_every: keep those too whose step is a multiple of this.

    Raises:
        UserError: the disk is full or not writable; nothing half-written stays.
    """
    root = Path(root)
    target = root / directory_name(step)
    complete = complete_state(state, step)
    with explain_disk_errors(str(target)):
        sweep(root)
        make_room(target)
    with atomic_directory(target, replace=True) as partial:
        weights = model_tensors(model) if isinstance(model, nn.Module) else model
        finite = _save(weights, partial / MODEL)
        finite &= _save(optimizer_state, partial / OPTIMIZER)
        (partial / STATE).write_text(complete.model_dump_json(), encoding="utf-8")
        (partial / CONFIG).write_text(dump_yaml(settings), encoding="utf-8")
        if tokenizer is not None:
            save_tokenizer(tokenizer, partial / TOKENIZER)
        counts = {MODEL: len(weights), OPTIMIZER: len(optimizer_state)}
        files = {
            path.name: FileRecord(
                bytes=path.stat().st_size, sha256=sha256_file(path), tensors=counts.get(path.name)
            )
            for path in sorted(partial.iterdir())
        }
        mark = None if tokenizer is None else tokenizer.fingerprint
        write_manifest(partial, Manifest(step=step, run=run, tokenizer=mark, files=files))
    if finite:
        remember(target)
    if keep is not None:
        retain(target, keep, every=keep_every, counts=finite)
    return target


def checkpoint_bytes(path: Path) -> int:
    """Return how much room a checkpoint takes on the disk, in bytes."""
    return sum(file.stat().st_size for file in path.iterdir())


def _save(tensors: Mapping[str, Tensor], path: Path) -> bool:
    """Write tensors; return whether all their values are finite."""
    save_tensors(tensors, path)
    return all(is_finite(tensor.detach()) for tensor in tensors.values())
