"""Freed memory stays with the process: touching it again costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, numpy
from coterie.foundation.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        numpy.ones(5_000_000)  # 40 MB, 9,766 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
lost = faults()
print(keep_freed_memory(), lost, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    can, lost, kept = done.stdout.split()
    if can == "False":
        pytest.skip("this C library has no mallopt")
    assert int(kept) < 10_500, done.stdout  # once for all twenty
    assert int(lost) > int(kept)
