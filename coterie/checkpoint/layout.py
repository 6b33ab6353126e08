"""Where things lie in a checkpoint, and which checkpoints a run has."""

from __future__ import annotations

import re
from pathlib import Path

FORMAT = 1
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
FILES = (MODEL, OPTIMIZER, STATE, CONFIG)
"""What every checkpoint holds; an imported model may have come without a tokenizer."""

_NAME = re.compile(r"step-(\d{8,})")


def directory_name(step: int) -> str:
    """Return the name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Return the step that a checkpoint directory's name says."""
    match = _NAME.fullmatch(path.name)
    assert match, f"{path} is not a checkpoint's name"
    return int(match.group(1))


def is_checkpoint(path: Path) -> bool:
    """Return whether a directory is a checkpoint, sound or not.

    A run holds a config.yaml as well, and folders of other tools a model.safetensors.
    """
    both = (path / MODEL).is_file() and (path / CONFIG).is_file()
    return both or (path / MANIFEST).is_file()


def list_checkpoints(root: Path | str) -> list[Path]:
    """Return every checkpoint directory, sound or not, the newest at the end."""
    root = Path(root)
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)
