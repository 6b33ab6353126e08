"""Races, kills and full disks, a few of each: the programs in `scripts/` run thousands."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import full_disks, kills, races

rest = ["--rounds", "1", "--seed", sys.argv[2]]
bad = races.main(["two_trainings", "two_prepares", "six_users_of_a_damaged_entry", *rest])
bad |= kills.main(["data prepare --replace", "train", "model import", *rest])
bad |= full_disks.main(["data prepare", "model export gguf", *rest]) % 77
sys.exit(bad)
"""


def test_places_have_owners_and_hold_the_old_or_the_new():
    """Of those who want one place one wins; neither a kill nor a full disk leaves half of one."""
    seed = random.randrange(1 << 30)
    command = [sys.executable, "-c", PROGRAM, str(SCRIPTS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.count("1 ×") >= 6
