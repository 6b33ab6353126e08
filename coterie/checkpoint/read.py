"""Reading checkpoints: find the newest sound one, name the damaged, refuse the foreign.

Every file is hashed before it is used; where only the model is used, the optimizer's is neither. A
checkpoint that is torn, altered or senseless is reported by name with what is wrong, and the one
before it is offered instead.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from coterie.checkpoint.check import find_problem, read_settings, read_tokenizer, require_sound
from coterie.checkpoint.layout import (
    MODEL,
    OPTIMIZER,
    directory_name,
    list_checkpoints,
    step_of,
    stored,
)
from coterie.checkpoint.manifest import read_manifest
from coterie.checkpoint.retain import remember
from coterie.checkpoint.state import read_state
from coterie.checkpoint.tensor_file import read_tensors
from coterie.foundation.errors import CheckpointError, nearest
from coterie.foundation.runs import RunDirectory
from coterie.tokenizer.interface import Tokenizer

OnDamaged = Callable[[Path, str], None]


@dataclass(frozen=True)
class Checkpoint:
    """What a sound checkpoint holds; its tensors are read, on the CPU, when somebody asks."""

    path: Path
    step: int
    run: str | None
    state: dict[str, Any]
    settings: dict[str, Any]
    tokenizer: Tokenizer | None

    @functools.cached_property
    def model(self) -> dict[str, Tensor]:
        """Its weights."""
        return read_tensors(stored(self.path, MODEL))

    @functools.cached_property
    def optimizer(self) -> dict[str, Tensor]:
        """Momentum and moments."""
        return read_tensors(stored(self.path, OPTIMIZER))


def find_checkpoint(
    run: RunDirectory | Path | str,
    step: int | None = None,
    on_damaged: OnDamaged | None = None,
    also: Callable[[Path], str | None] = lambda path: None,
    *,
    moments: bool = True,
) -> Path:
    """Return the newest sound checkpoint of a run, or the one of a given step.

    Args:
        run: a run, or the path of its directory of checkpoints.
        step: ask for this one; then damage is an error instead of a reason to look further.
        on_damaged: told the path and the problem of each damaged checkpoint passed over.
        also: says what else is wrong with one that is sound by itself, if anything.
        moments: whether the optimizer's files are read as well; see `find_problem`.

    Raises:
        CheckpointError: there is none, or all (or the one asked for) are damaged.
    """
    root = run.checkpoints if isinstance(run, RunDirectory) else Path(run)
    found = list_checkpoints(root)
    if step is not None:
        return _find_step(root, found, step, moments)
    problems: list[str] = []
    for path in reversed(found):
        problem = find_problem(path, moments=moments) or also(path)
        if problem is None:
            if moments:
                remember(path)
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


def _find_step(root: Path, found: list[Path], step: int, moments: bool) -> Path:
    path = root / directory_name(step)
    if path not in found:
        known = nearest(str(step), [str(step_of(other)) for other in found])
        raise CheckpointError(f"There is no checkpoint of step {step} in {root}; {known}")
    require_sound(path, moments=moments)
    return path


def load_checkpoint(path: Path | str, *, verify: bool = True) -> Checkpoint:
    """Read a checkpoint.

    Args:
        verify: check it first; switch off only right after `find_checkpoint` did. Weights that are
            not finite are read as they are.

    Raises:
        CheckpointError: it is missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    if verify:
        require_sound(path, finite=False)
    manifest = read_manifest(path)
    return Checkpoint(
        path=path,
        step=manifest.step,
        run=manifest.run,
        state=read_state(path).model_dump(mode="json"),
        settings=read_settings(path),
        tokenizer=read_tokenizer(path),
    )
