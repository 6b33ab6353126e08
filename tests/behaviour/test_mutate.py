"""The check that breaks one line at a time tells what is noticed from what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutate.py"
TABLE = """
- file: ladder.py
  tests: test_ladder.py
  mutations:
    - {name: "one rung too high", old: "return rung + 1", new: "return rung + 2"}
    - {name: "does not load", old: "def climb", new: "def def climb"}
    - {name: "unheard", old: "print('up')", new: "print('down')"}
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    (tmp_path / "ladder.py").write_text("def climb(rung):\n    print('up')\n    return rung + 1\n")
    test = "from ladder import climb\n\ndef test_climb():\n    assert climb(1) == 2\n"
    (tmp_path / "test_ladder.py").write_text(test)
    (tmp_path / "table.yaml").write_text(TABLE)
    return tmp_path


def mutate(tree: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, str(SCRIPT), "--root", str(tree), "--table", f"{tree}/table.yaml"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_caught_and_the_survivor_are_told_and_the_tree_stays_as_it_was(tree):
    before = {path.name: path.read_bytes() for path in tree.iterdir()}
    code, told = mutate(tree)
    assert code == 1
    assert "2 of 3 mutations were caught: 66.7%" in told
    assert "survived: unheard (ladder.py)" in told
    assert {path.name: path.read_bytes() for path in tree.iterdir()} == before
    assert mutate(tree, "--check") == (0, "3 mutations fit the code\n")


@pytest.mark.parametrize("old", ["return rung - 1", "rung"])
def test_a_text_that_does_not_stand_exactly_once_is_refused(tree, old):
    table = (tree / "table.yaml").read_text().replace('old: "return rung + 1"', f'old: "{old}"')
    (tree / "table.yaml").write_text(table)
    code, told = mutate(tree)
    assert code == 2
    assert "one rung too high: its old text stands" in told


def test_tests_that_fail_by_themselves_catch_nothing(tree):
    (tree / "test_ladder.py").write_text("def test_climb():\n    raise ValueError\n")
    code, told = mutate(tree, "--only", "rung")
    assert code == 1
    assert "not tried: its tests fail without it: one rung too high" in told
