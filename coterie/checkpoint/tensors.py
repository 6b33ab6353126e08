"""Tensors to a safetensors file, with the disk's refusals as the system words them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file that whoever may read its folder may read.

    Raises:
        OSError: the system could not write; the library's own error hides that in its text.
    """
    try:
        save_file(tensors, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # the library lets nobody else read it
