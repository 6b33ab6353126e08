"""Compiled, the decoder gives the same losses and gradients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_compiles_to_the_same_losses_and_gradients():
    script = Path(__file__).with_name("compiled.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differences = dict(line.split() for line in done.stdout.splitlines())
    assert set(differences) == {"parts", "moe"}
    assert all(float(value) < 1e-10 for value in differences.values()), differences
