"""Writing a checkpoint: one directory that is whole or not there.

step-00001000/
  model.safetensors      parameters and buffers, balance biases included
  optimizer.safetensors  momentum and moments, by parameter name
  state.json             step, tokens, random states, loss scale, clip history, losses
  config.yaml            the resolved settings of the run
  tokenizer.json         the tokenizer, unless the model came without one
  manifest.json          size and SHA-256 of each file above and of itself; written last

Several processes write folders in the place of the first two files, model/ and optimizer/, with a
part of each process: part-00001.safetensors and so on.

The directory is made under another name, flushed, and renamed, so a kill at any moment leaves the
earlier checkpoints as they were. Nothing is ever pickled.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from coterie import checkpoint
from coterie.checkpoint.group import Group
from coterie.checkpoint.layout import (
    CONFIG,
    FORMAT,
    MODEL,
    OPTIMIZER,
    PARTED,
    STATE,
    TOKENIZER,
    directory_name,
    part_name,
)
from coterie.checkpoint.manifest import FileRecord, Manifest, write_manifest
from coterie.checkpoint.retain import make_room, remember, retain, sweep
from coterie.checkpoint.state import State, complete_state
from coterie.checkpoint.tensor_file import save_tensors
from coterie.checkpoint.tensors import is_finite, model_tensors
from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.files import sha256_file
from coterie.foundation.layers import dump_yaml
from coterie.foundation.settings import Settings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import save_tokenizer

_ALONE = Group()


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
    group: Group = _ALONE,
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
        group: all processes that call this now, each with its own blocks.

    Raises:
        UserError: the disk is full or not writable; nothing half-written stays.
    """
    root = Path(root)
    target = root / directory_name(step)
    version = FORMAT if group.world == 1 else PARTED
    complete = complete_state(state, step, version)

    def describe(partial: Path, written: list[_Written]) -> None:
        (partial / CONFIG).write_text(dump_yaml(settings), encoding="utf-8")
        if tokenizer is not None:
            save_tokenizer(tokenizer, partial / TOKENIZER)
        mark = None if tokenizer is None else tokenizer.fingerprint
        files = {name: record for each in written for name, record in each.files.items()}
        manifest = Manifest(format=version, step=step, run=run, tokenizer=mark, files=files)
        complete_directory(partial, complete, manifest)

    group.first(lambda: _clear(target))
    with group.directory(target) as partial:
        weights = model_tensors(model) if isinstance(model, nn.Module) else model
        tensors = {MODEL: weights, OPTIMIZER: optimizer_state}
        written = _write(tensors, partial, group)
        group.first(lambda: describe(partial, written))
    finite = all(each.finite for each in written)
    if finite:
        remember(target)
    if keep is not None:
        group.first(lambda: retain(target, keep, every=keep_every, counts=finite))
    return target


def _clear(target: Path) -> None:
    with explain_disk_errors(str(target)):
        sweep(target.parent)
        make_room(target)


class _Written(NamedTuple):
    """What one process wrote, and whether all its values are finite."""

    files: dict[str, FileRecord]
    finite: bool


def _write(
    kinds: Mapping[str, Mapping[str, Tensor]], partial: Path, group: Group
) -> list[_Written]:
    """Write the files of tensors, or the parts that each process has of them."""
    counts: dict[str, int] = {}
    for name, tensors in kinds.items():
        if group.world == 1:
            save_tensors(tensors, partial / name)
            counts[name] = len(tensors)
            continue
        folder = partial / Path(name).stem
        group.first(folder.mkdir)
        blocks = checkpoint.write_parts(tensors, folder, group)
        if (folder / (part := part_name(group.rank))).exists():
            counts[f"{folder.name}/{part}"] = blocks
    held = [tensor for tensors in kinds.values() for tensor in tensors.values()]

    def describe() -> _Written:
        files = {name: record_of(partial / name, count) for name, count in counts.items()}
        return _Written(files, all(is_finite(_own(tensor.detach())) for tensor in held))

    return group.every(describe)


def _own(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that may lie over a mesh."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore


def complete_directory(partial: Path, state: State, manifest: Manifest) -> None:
    """Write the state and, last, the manifest, in which all files stand that lie there beside."""
    (partial / STATE).write_text(state.model_dump_json(), encoding="utf-8")
    files = dict(manifest.files)
    for path in sorted(partial.iterdir()):
        if path.is_file() and path.name not in files:
            files[path.name] = record_of(path)
    write_manifest(partial, manifest.model_copy(update={"files": files}))


def record_of(path: Path, tensors: int | None = None) -> FileRecord:
    """Return what a manifest says of a file."""
    return FileRecord(bytes=path.stat().st_size, sha256=sha256_file(path), tensors=tensors)


def checkpoint_bytes(path: Path) -> int:
    """Return how much room a checkpoint, or a file of one, takes on the disk, in bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
