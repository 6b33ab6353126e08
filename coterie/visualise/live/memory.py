"""The memory of this process."""

import sys

try:
    import resource
except ImportError:  # Windows has none
    resource = None


def peak_memory() -> int | None:
    """Return the most bytes that this process has held; None where it cannot be told."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
