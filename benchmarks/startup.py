"""From the shell to the first token, and where the time goes.

    python benchmarks/startup.py [2M 17M 29M 98M] [--repeats 5] [--cold] [--folder DIR]

Sizes are those of `coterie benchmark decode`, in active parameters; a checkpoint of each is made
once in --folder. Each figure is a fresh process, measured from outside, the commands in turns:
median seconds over the repeats and half the distance of the quartiles. `import torch` is what the
machine takes for that alone. With --cold the checkpoint leaves the page cache before each run
(posix_fadvise); the libraries stay in it. Kernels are compiled once into an empty folder (`kernels
cold`), and then loaded from it. At the end the dearest modules of the largest size's run are listed
by their own import time. Byte code is kept, even where the environment says it is not to be.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from coterie.benchmark.decode import SIZES, standard_model
from coterie.checkpoint import save_checkpoint
from coterie.checkpoint.layout import directory_name
from coterie.train.randomness import random_state
from coterie.train.settings import RunSettings

COTERIE = [sys.executable, "-m", "coterie"]
PROMPT = "一丁"  # of the sizes' own alphabet


def make(folder: Path, size: str) -> Path:
    """Return a checkpoint of a size, made if it is not there."""
    root = folder / size
    path = root / directory_name(1)
    if not path.exists():
        decoder, tokenizer = standard_model(size)
        save_checkpoint(
            root, 1, model=decoder, optimizer_state={}, state={"random": random_state()},
            settings=RunSettings(model=decoder.settings), tokenizer=tokenizer,
        )  # fmt: skip
    return path


def forget(folder: Path) -> None:
    """Let the page cache forget the files of a folder."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fdatasync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the processes: kernels and byte code are kept in a folder."""
    found = {**os.environ, "COTERIE_CACHE": str(folder / "cache")}
    if found.pop("PYTHONDONTWRITEBYTECODE", None):
        found["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    return found


def generate(path: Path, *words: str) -> list[str]:
    return [*COTERIE, "generate", str(path), PROMPT, "temperature=0", *words]


def timed(command: list[str], env: dict[str, str]) -> float:
    """Return how many seconds a command takes."""
    began = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began


def dearest(command: list[str], env: dict[str, str], number: int = 10) -> list[str]:
    """Return the modules that took longest by themselves to import, and their sum."""
    options = [command[0], "-X", "importtime", *command[1:]]
    said = subprocess.run(options, env=env, capture_output=True, text=True).stderr
    found = re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", said, re.MULTILINE)
    rows = sorted(((int(own) / 1e6, name) for own, name in found), reverse=True)
    parts: dict[str, float] = defaultdict(float)
    for own, name in rows:
        parts[name.partition(".")[0]] += own
    most = sorted(parts.items(), key=lambda part: -part[1])[:5]
    total = "  ".join(f"{name} {own:.2f}" for name, own in most)
    lines = [f"{own:8.3f} s  {name}" for own, name in rows[:number]]
    return [f"{len(rows)} modules, {sum(parts.values()):.2f} s: {total}", *lines]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "coterie-startup"))
    options = parser.parse_args()
    folder = Path(options.folder)
    env = environment(folder)
    paths = {size: make(folder, size) for size in options.sizes}
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "coterie --version": [*COTERIE, "--version"],
        "coterie --help": [*COTERIE, "--help"],
    }
    for size, path in paths.items():
        told = f"{size}, {sum(file.stat().st_size for file in path.iterdir()) / 1e6:,.0f} MB"
        commands[f"generate, one token, {told}"] = generate(path, "max_tokens=1")
    native = generate(next(iter(paths.values())), "max_tokens=2", "compute=native")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    print(f"{timed(native, env):8.3f} s           {next(iter(paths))}, kernels cold")
    commands[f"{next(iter(paths))}, two tokens, kernels compiled before"] = native
    for command in commands.values():
        timed(command, env)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        for name, command in commands.items():
            if options.cold:
                for path in paths.values():
                    forget(path)
            seconds[name].append(timed(command, env))
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        print(f"{middle:8.3f} s ± {(high - low) / 2:.3f}  {name}")
    print(*dearest(generate(paths[options.sizes[-1]], "max_tokens=1"), env), sep="\n")


if __name__ == "__main__":
    main()
