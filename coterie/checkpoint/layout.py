"""Where things lie in a checkpoint, and which checkpoints a run has."""

import re
from pathlib import Path

FORMAT = 2
PARTED = 3
"""The format of checkpoints whose tensors lie in parts, which earlier versions cannot read."""
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
FILES = (MODEL, OPTIMIZER, STATE, CONFIG)
"""What every checkpoint holds; an imported model may have come without a tokenizer."""

_NAME = re.compile(r"step-([0-9]{8,16})")
_PART = re.compile(r"(model|optimizer)/part-[0-9]{5}\.safetensors")


def stored(folder: Path, name: str) -> Path:
    """Return where a checkpoint keeps `MODEL` or `OPTIMIZER`: one file, or a folder of parts."""
    parts = folder / Path(name).stem
    return parts if parts.is_dir() else folder / name


def part_name(number: int) -> str:
    """Return the name of a part, counted from 0, in the folder of its kind."""
    return f"part-{number + 1:05d}.safetensors"


def part_of(name: str) -> str:
    """Return which of the files a manifest's entry is, or is a part of."""
    match = _PART.fullmatch(name)
    return f"{match.group(1)}.safetensors" if match else name


def directory_name(step: int) -> str:
    """Return the name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Return the step that a checkpoint directory's name says."""
    step = named_step(path)
    assert step is not None, f"{path} is not a checkpoint's name"
    return step


def named_step(path: Path) -> int | None:
    """Return the step that a directory's name says; None if it is not named as a checkpoint is."""
    match = _NAME.fullmatch(path.name)
    step = int(match.group(1)) if match else None
    return step if step is not None and directory_name(step) == path.name else None


def is_checkpoint(path: Path) -> bool:
    """Return whether a directory is a checkpoint, sound or not.

    A run holds a config.yaml as well, and folders of other tools a model.safetensors.
    """
    both = (path / MODEL).is_file() and (path / CONFIG).is_file()
    return both or (path / MANIFEST).is_file()


def list_checkpoints(root: Path | str) -> list[Path]:
    """Return every checkpoint directory, sound or not, the newest at the end."""
    try:
        entries = list(Path(root).iterdir())
    except OSError:
        return []
    return sorted((e for e in entries if named_step(e) is not None and e.is_dir()), key=step_of)
