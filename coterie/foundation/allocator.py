"""The C library's allocator: memory that was freed is kept for the next step of the same shape.

glibc returns large blocks to the system as soon as they are free and asks for them again with the
next allocation, and each of their pages then costs a fault: a tenth of a small model's step.
"""

import ctypes
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1}


_STATUS = Path("/proc/self/status")


def resident_bytes(what: str = "VmRSS") -> int:
    """Return the resident size of this process, or with `VmHWM` its peak, in bytes.

    Raises:
        OSError: the system does not tell.
    """
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    (line,) = (each for each in lines if each.startswith(what + ":"))
    return int(line.split()[1]) * 1024


def return_freed_memory() -> None:
    """Give what this process has freed back to the system, where the allocator can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 2 GiB; return whether the allocator can do that.

    Only glibc is asked; another allocator, loaded in its place, ignores it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all(mallopt(setting, value) == 1 for setting, value in _KEPT.items())
