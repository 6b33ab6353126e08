"""Which checkpoints stay: the newest few, the best and every n-th, counted among sound ones alone.

What is damaged, empty, foreign, from another training or beyond the step that was just written is
neither counted nor touched. So that no save reads old checkpoints again, those that were found
sound are remembered with the sizes and times of their files.
"""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from coterie.checkpoint.check import find_problem
from coterie.checkpoint.layout import is_checkpoint, list_checkpoints, step_of
from coterie.checkpoint.manifest import read_manifest
from coterie.checkpoint.state import read_state
from coterie.foundation import swap
from coterie.foundation.errors import CheckpointError

_Signature = tuple[tuple[str, int, int, int, int], ...]
_sound: dict[Path, _Signature] = {}


def remember(path: Path) -> None:
    """Remember that a checkpoint is sound in its present state."""
    if signature := _signature(path):
        _sound[path.resolve()] = signature


def is_sound(path: Path) -> bool:
    """Return whether a checkpoint is sound; it is read only if it is not known as it is now."""
    signature = _signature(path)
    if signature is None:
        return False
    if _sound.get(path.resolve()) != signature:
        if find_problem(path) is not None:
            return False
        remember(path)
    return True


def _signature(path: Path) -> _Signature | None:
    """Return what changes whenever a file of a directory is written to."""
    try:
        found = [(str(file), file.stat()) for file in sorted(path.rglob("*"))]
    except OSError:
        return None
    return tuple((n, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for n, s in found)


def retain(newest: Path, keep: int, *, every: int | None = None, counts: bool = True) -> None:
    """Remove checkpoints before the newest one that need not be kept.

    Args:
        newest: the one just written; it always stays.
        keep: how many of the newest to keep, and the one with the lowest validation loss besides.
        every: keep those too whose step is a multiple of this; None: no others.
        counts: whether the newest is among those; it is not where its weights are of no use.
    """
    run = read_manifest(newest).run
    sound = [path for path in _before(newest) if is_sound(path) and _is_of(path, run)]
    sound.reverse()
    kept = {newest, *sound[: max(keep - int(counts), 0)]}
    if best := _best([*([newest] if counts else []), *sound]):
        kept.add(best)
    if every is not None:
        kept.update(path for path in sound if step_of(path) % every == 0)
    remove(path for path in sound if path not in kept)


def best_step(root: Path) -> int | None:
    """Return the step of the sound checkpoint with the lowest validation loss; None: none has one.

    Args:
        root: the directory of a run's checkpoints.
    """
    best = _best(path for path in list_checkpoints(root) if is_sound(path))
    return None if best is None else step_of(best)


def _best(sound: Iterable[Path]) -> Path | None:
    losses = {path: loss for path in sound
              if (loss := read_state(path).validation_loss) is not None}  # fmt: skip
    return min(losses, key=lambda path: (losses[path], -step_of(path)), default=None)


def _before(newest: Path) -> list[Path]:
    found = list_checkpoints(newest.parent)
    return [path for path in found if step_of(path) < step_of(newest) and not path.is_symlink()]


def _is_of(path: Path, run: str | None) -> bool:
    """Whether a sound checkpoint is of this training; None is of any, as imported ones are."""
    try:
        return run is None or read_manifest(path).run in (None, run)
    except CheckpointError:
        return False


def remove(paths: Iterable[Path]) -> None:
    """Remove checkpoints so that a kill in between leaves none that looks whole but is not."""
    for path in paths:
        doomed = path.with_name(f".{path.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(OSError):  # what cannot be removed costs room, not the run
            path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(root: Path) -> None:
    """Mend what a kill left behind: checkpoints half written, half removed, or moved aside.

    What another process is writing there now is left alone.
    """
    swap.sweep(root)
    for path in root.glob(".step-*.removed"):
        shutil.rmtree(path, ignore_errors=True)


def make_room(target: Path) -> None:
    """Move what stands in a checkpoint's place and is none out of it; an empty folder may go."""
    if not target.exists() or is_checkpoint(target):
        return
    with contextlib.suppress(OSError):
        target.rmdir()
        return
    number = 1
    while (aside := target.with_name(f"{target.name}.aside-{number}")).exists():
        number += 1
    target.rename(aside)
