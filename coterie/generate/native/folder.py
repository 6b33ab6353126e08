"""Where machine code is kept; known without importing numba."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from coterie.foundation.runs import cache_root


@cache
def source_digest() -> str:
    """Return what the machine code was compiled from: these very kernels and numba's version."""
    try:
        digest = hashlib.sha256(version("numba").encode())
    except PackageNotFoundError:
        digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return where the machine code of these very kernels is kept.

    numba looks at one file alone when it decides whether what it has kept is still valid; the
    folder's name says the rest.
    """
    return cache_root() / "kernels" / source_digest()


def compiled_before() -> bool:
    """Return whether machine code of these kernels is kept on this machine."""
    return any(cache_folder().rglob("*take_part*.nbc"))
