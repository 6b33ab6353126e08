"""Races, kills and full disks, a few of each: the programs in `scripts/` run thousands."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import full_disks, kills, races

rest, bad = ["--rounds", "1", "--seed", sys.argv[2]], 0
races_tried, killed, filled = (each.split(",") for each in sys.argv[3:])
bad |= races.main([*races_tried, *rest])
bad |= kills.main([*killed, *rest])
bad |= full_disks.main([*filled, *rest]) % 77
sys.exit(bad)
"""
FEW = ["two_trainings,six_users_of_a_damaged_entry", "data prepare --replace,train", "data prepare"]
MORE = ["two_prepares,two_exports", "model import,report", "model export gguf"]


@pytest.mark.parametrize("tried", [FEW, pytest.param(MORE, marks=pytest.mark.exhaustive)])
def test_places_have_owners_and_hold_the_old_or_the_new(tried):
    """Of those who want one place one wins; neither a kill nor a full disk leaves half of one."""
    seed = random.randrange(1 << 30)
    command = [sys.executable, "-c", PROGRAM, str(SCRIPTS), str(seed), *tried]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.count("1 ×") >= 4
