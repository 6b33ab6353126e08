"""Damages a folder at random, as disks, programs and people do: shared by the `corrupt_*.py`.

A damage is a function (random, folder, other folder of the same kind) that changes the folder and
returns in words what it did, or `None` where it found nothing to do. Nothing here knows the format.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.foundation.errors import UserError

Damage = Callable[[random.Random, Path, Path], str | None]


def files(folder: Path) -> list[Path]:
    """Return the regular files of a folder in order."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())


def flip_bit(rng: random.Random, folder: Path, other: Path) -> str:
    """Flip one bit of one file, as often in a small file as in a large one."""
    file = rng.choice([file for file in files(folder) if file.stat().st_size])
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"a bit of {file.name} at {place}"


def truncate(rng: random.Random, folder: Path, other: Path) -> str:
    """Cut the end of a file off, sometimes all of it."""
    file = rng.choice([file for file in files(folder) if file.stat().st_size])
    size = rng.choice([0, rng.randrange(file.stat().st_size)])
    os.truncate(file, size)
    return f"{file.name} cut to {size}"


def grow(rng: random.Random, folder: Path, other: Path) -> str:
    """Append to a file: a few bytes, or a hole that costs no space on the disk."""
    file = rng.choice(files(folder))
    size = file.stat().st_size
    added = rng.choice([1, 2, 8, 1 << 20, 1 << 40])
    os.truncate(file, size + added)
    return f"{file.name} grown by {added}"


def overwrite(rng: random.Random, folder: Path, other: Path) -> str:
    """Write noise over a part of a file."""
    file = rng.choice([file for file in files(folder) if file.stat().st_size])
    content = bytearray(file.read_bytes())
    start = rng.randrange(len(content))
    stop = min(start + rng.randrange(1, 64), len(content))
    content[start:stop] = rng.randbytes(stop - start)
    file.write_bytes(content)
    return f"noise in {file.name} at {start} to {stop}"


def swap(rng: random.Random, folder: Path, other: Path) -> str:
    """Exchange two files of the folder."""
    first, second = rng.sample(files(folder), 2)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    return f"{first.name} and {second.name} exchanged"


def from_other(rng: random.Random, folder: Path, other: Path) -> str | None:
    """Take a file from another folder."""
    names = [file.name for file in files(other) if (folder / file.name).exists()]
    if not names:
        return None
    name = rng.choice(names)
    shutil.copyfile(other / name, folder / name)
    return f"{name} from {other.name}"


def rename(rng: random.Random, folder: Path, other: Path) -> str:
    """Give a file another name."""
    file = rng.choice(files(folder))
    name = rng.choice([file.name.upper(), f".{file.name}", file.name + "~", "x", file.name[:-1]])
    file.rename(folder / name)
    return f"{file.name} renamed to {name}"


def remove(rng: random.Random, folder: Path, other: Path) -> str:
    """Remove a file."""
    file = rng.choice(files(folder))
    file.unlink()
    return f"{file.name} removed"


def _entry(rng: random.Random, place: Path, other: Path) -> str:
    """Put something at a place: a file, a folder, a link, a pipe or a socket."""
    kind = rng.choice(["file", "folder", "full folder", "link", "broken link", "pipe", "socket"])
    if kind == "file":
        place.write_bytes(rng.randbytes(rng.choice([0, 10])))
    elif kind == "folder":
        place.mkdir()
    elif kind == "full folder":
        shutil.copytree(other, place)
    elif kind == "link":
        place.symlink_to(rng.choice(files(other)))
    elif kind == "broken link":
        place.symlink_to("/nowhere/at/all")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(place.parent)  # a socket's path must be short
            server.bind(place.name)
            os.chdir(here)
    return kind


def add(rng: random.Random, folder: Path, other: Path) -> str:
    """Add something that does not belong to the folder."""
    name = rng.choice(
        ["notes.txt", ".hidden", "sub", "manifest.json~", "é\n\x1b[2J", "x.partial-1"]
    )
    return f"{_entry(rng, folder / name, other)} added as {name!r}"


def replace(rng: random.Random, folder: Path, other: Path) -> str:
    """Put something else where a file was; a link leads to the same content elsewhere."""
    file = rng.choice(files(folder))
    if rng.random() < 0.3:
        kept = folder.parent / f"kept-{file.name}"
        shutil.move(file, kept)
        file.symlink_to(kept)
        return f"{file.name} is a link to itself elsewhere"
    file.unlink()
    return f"{file.name} became a {_entry(rng, file, other)}"


BYTES: tuple[Damage, ...] = (
    flip_bit, truncate, grow, overwrite, swap, from_other, rename, remove, add, replace,
)  # fmt: skip

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 256, 257, 65_536, 2**31, 2**32, 2**53, 2**63, 2**64,
    10**400, 0.0, 0.5, -0.5, 1.0, 1e308, "", "x", "0", "../x.bin", "/etc/passwd", "a\0b", "train",
    "\x1b[2J", "\ud800", "x" * 10_000, [], [[]], [1], ["x"], {}, {"x": 1}, {"": {}},
)  # fmt: skip


def descend(rng: random.Random, value: Any) -> tuple[Any, Any]:
    """Return (holder, key) of some value inside a JSON value, deep and shallow ones alike."""
    holder, key = value, rng.choice(list(_keys(value)))
    while _keys(holder[key]) and rng.random() < 0.7:
        holder = holder[key]
        key = rng.choice(list(_keys(holder)))
    return holder, key


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return value.keys()
    return range(len(value)) if isinstance(value, list) else ()


def edit_json(rng: random.Random, value: Any) -> str:
    """Change one value inside a JSON object: its value, its name, its being there."""
    holder, key = descend(rng, value)
    how = rng.choice(
        ["set", "set", "set", "near", "near", "remove", "add", "rename", "copy", "deep"]
    )
    old = holder[key]
    if how == "remove":
        del holder[key]
    elif how == "add":
        holder.update(extra=1) if isinstance(holder, dict) else holder.append(1)
    elif how == "rename" and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    elif how == "copy":
        source, name = descend(rng, value)
        holder[key] = json.loads(json.dumps(source[name]))
    elif how == "deep":
        holder[key] = json.loads("[" * 150 + "]" * 150)
    elif how == "near" and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = rng.choice([old + 1, old - 1, -old, old * 2, float(old), str(old), old // 2])
    elif how == "near" and isinstance(old, str) and old:
        place = rng.randrange(len(old))
        holder[key] = old[:place] + rng.choice("0aZ/. ") + old[place + 1 :]
    else:
        holder[key] = rng.choice(ODD_VALUES)
    return f"{how} {str(key)[:40]!r}, was {str(old)[:40]!r}"


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` where the block takes longer: a reader that waits at a pipe."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(use: Callable[[], None], seconds: int, longest: int) -> str:
    """Return what comes of using something damaged; what begins with a capital is wrong.

    Args:
        use: reads it and does something with it.
        seconds: how long that may take.
        longest: how many characters a refusal may have.
    """
    try:
        with at_most(seconds):
            use()
    except UserError as error:
        message = str(error)
        if len(message) > longest or not message.replace("\n", "").isprintable():
            return f"UNFIT TO SHOW {message[:300]!r}"
        return "refused"
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"TRACEBACK\n{traceback.format_exc()}"
    return "imported"


def attack_for_rounds(
    description: str | None,
    rounds: int,
    memory: int,
    make: Callable[[Path], Any],
    attack: Callable[[random.Random, Any, Path], tuple[str, str]],
) -> int:
    """Attack what `make` writes into a folder, in bounded memory; print what came of it.

    Args:
        description: of the program.
        rounds: if the command line names none.
        memory: that the process may take, in bytes.
        make: writes what is sound and returns it.
        attack: damages a copy of something sound at a path, and returns verdict and deed in words.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    rng = random.Random(given.seed)
    verdicts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        sound = make(Path(folder))
        for _ in range(given.rounds):
            verdict, what = attack(rng, sound, Path(folder) / "attacked")
            verdicts[verdict.split("\n")[0].split(" ")[0]] += 1
            if verdict[0].isupper():
                print(f"{verdict}\n  {what}")
    print(dict(verdicts))
    return 1 if any(verdict[0].isupper() for verdict in verdicts) else 0
