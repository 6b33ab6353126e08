"""A checkpoint in one file of weights and one of moments, or in parts; every value stays as it is.

What several processes wrote lies in parts. Whoever uses the model reads both, but a single file is
mapped into memory instead of being put together, and is what other programs know.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from coterie.checkpoint.check import require_sound
from coterie.checkpoint.layout import (
    CONFIG,
    FORMAT,
    MODEL,
    OPTIMIZER,
    PARTED,
    TOKENIZER,
    part_name,
    stored,
)
from coterie.checkpoint.manifest import FileRecord, read_manifest
from coterie.checkpoint.state import read_state
from coterie.checkpoint.tensor_file import read_tensors, save_tensors
from coterie.checkpoint.write import complete_directory, record_of
from coterie.foundation.files import atomic_directory


def convert_checkpoint(path: Path, files: int = 1) -> bool:
    """Write a checkpoint anew in so many files of each kind, in its own place, at once or not.

    Returns whether there was anything to do. A kind of which there are fewer tensors lies in fewer
    files.

    Raises:
        CheckpointError: it is damaged; nothing was changed.
        UserError: the disk is full or not writable; nothing was changed.
    """
    require_sound(path, finite=False)
    if files == 1 and all((path / name).is_file() for name in (MODEL, OPTIMIZER)):
        return False
    old, state = read_manifest(path), read_state(path)
    version = FORMAT if files == 1 else PARTED
    with atomic_directory(path, replace=True) as partial:
        records: dict[str, FileRecord] = {}
        for name in (MODEL, OPTIMIZER):
            tensors = read_tensors(stored(path, name))
            for part, some in _divided(name, tensors, files).items():
                (partial / part).parent.mkdir(exist_ok=True)
                save_tensors(some, partial / part)
                records[part] = record_of(partial / part, len(some))
        for name in (CONFIG, TOKENIZER):
            if name in old.files:
                shutil.copyfile(path / name, partial / name)
        complete_directory(
            partial,
            state.model_copy(update={"format": version}),
            old.model_copy(update={"format": version, "files": records}),
        )
    return True


def _divided(name: str, tensors: dict[str, Tensor], files: int) -> dict[str, dict[str, Tensor]]:
    """Return which tensors lie in which file, the largest where there is least yet."""
    if files == 1:
        return {name: tensors}
    shares: list[dict[str, Tensor]] = [{} for _ in range(max(min(files, len(tensors)), 1))]
    for key in sorted(tensors, key=lambda each: -tensors[each].nbytes):
        least = min(shares, key=lambda share: (sum(t.nbytes for t in share.values()), len(share)))
        least[key] = tensors[key]
    return {f"{Path(name).stem}/{part_name(at)}": share for at, share in enumerate(shares)}
