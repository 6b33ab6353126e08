"""Every command that writes, on a disk that becomes full at some moment: exit 2, and nothing cut.

    python scripts/full_disks.py --rounds 10 --seed 1      # as root: it mounts a disk in memory

Each round leaves a random amount of room, less than the command needs, and looks at what stands
afterwards: the old result or the new one, never half of one, nothing hidden, and words that say
what happened. Prints a table and exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kills import CASES, Case, bases
from processes import Child, Tally, copy, leftovers, options_of, room, start

SIZE = 4 << 20
PAGE = 4096


def _free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def _fill(disk: Path, left: int) -> None:
    """Take all room but so many bytes."""
    with open(disk / "filler", "wb") as file:
        file.write(bytes(max(_free(disk) - left, 0)))


def _run(case: Case, folder: Path, said: Path) -> Child:
    child = start(case.words, folder, said=said)
    child.wait()
    return child


def _round(case: Case, base: Path, disk: Path, left: int, new: str) -> tuple[str, str]:
    """Run a command with so little room; return what happened, and what was wrong."""
    for each in disk.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    folder = copy(base, disk / "work")
    old = case.found(folder)
    _fill(disk, left)
    child = _run(case, folder, disk.parent / "said.txt")
    (disk / "filler").unlink()
    found = case.found(folder)
    if found not in (old, new) and not case.unfinished:
        return "", f"neither the old nor the new stands, exit {child.code}: {child.said[-300:]}"
    hidden = leftovers(folder)
    if "--resume" in case.words and case.words[0] == "data" and child.code:
        return _resumed(case, folder, disk, new, child)
    if hidden:
        return "", f"left behind: {hidden}"
    if child.code == 0:
        return ("there was room", "") if found == new else ("", "exit 0, but not the new one")
    if saved := re.search(r"was saved in (\S+)\.\n", child.said):
        rescued = Path(saved[1]).parents[1]
        assert ".rescued" in rescued.name
        whole = case.found(folder) in (old, new) or case.unfinished
        shutil.rmtree(rescued)
        full = "disk is full" in child.said and child.code == 1 and whole
        return ("the model was saved elsewhere", "") if full else ("", child.said[-300:])
    if child.code != 2 or "disk is full" not in child.said:
        return "", f"exit {child.code}: {child.said[-300:]}"
    return "refused in words", ""


def _resumed(case: Case, folder: Path, disk: Path, new: str, refused: Child) -> tuple[str, str]:
    """Go on, now that there is room, with what a command was asked to leave behind."""
    if refused.code != 2 or "disk is full" not in refused.said:
        return "", f"exit {refused.code}: {refused.said[-300:]}"
    again = _run(case, folder, disk.parent / "said.txt")
    if again.code or case.found(folder) != new or leftovers(folder):
        return "", f"gone on with: exit {again.code}, {leftovers(folder)}: {again.said[-300:]}"
    return "refused in words, then gone on with", ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands that were asked for on full disks and print what happened."""
    options = options_of(arguments, __doc__, CASES, 10, "disks")
    rooms, tally = random.Random(options.seed), Tally()
    with room("full-") as place:
        found = bases(Path(place))
        disk = Path(place) / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            print("no disk can be mounted here, so nothing was tried")
            return 77
        try:
            for name in options.names:
                _try(name, found, disk, options.rounds, rooms, tally)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return tally.exit_code()


def _try(
    name: str, found: dict[str, Path], disk: Path, rounds: int, rooms: random.Random, tally: Tally
) -> None:
    """Run one command on several disks."""
    case = CASES[name]
    folder = copy(found[case.base], disk.parent / "alone")
    before = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    assert _run(case, folder, disk.parent / "said.txt").code == 0
    new = case.found(folder)
    need = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) - before
    for number in range(rounds):
        left = rooms.randrange(0, max(2 * need, 8 * PAGE), PAGE)
        try:
            outcome, problem = _round(case, found[case.base], disk, left, new)
        except AssertionError as error:
            outcome, problem = "", str(error) or "an assertion failed"
        tally.add(f"{name}, disk {number} ({left:,} bytes free)", outcome, problem)
    tally.close(f"{name} ({need:,} bytes)")


if __name__ == "__main__":
    sys.exit(main())
