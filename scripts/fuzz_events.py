"""Flips single bits of a run's events.jsonl and holds every command to work all the same.

Each round flips one bit of a sound record. `runs list`, `runs show` and `report` must succeed, and
so must `train --resume` in every tenth round; a line that is no JSON any more must be named.

Run: python scripts/fuzz_events.py --rounds 3000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from coterie.cli.app import run as coterie

TEXT = "To be, or not to be, that is the question:\nWhether tis nobler in the mind to suffer\n" * 40
TRAIN = ["train", "quickstart", "scale=tiny", "train.steps=12", "train.evaluate_every=4",
         "train.checkpoint_every=6", "train.load_every=2", "sample.max_tokens=5"]  # fmt: skip


def call(*words: str) -> tuple[int, str]:
    """Run one command and return its exit code and what it told on standard error."""
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        code = coterie(list(words))
    return code, told.getvalue()


def broken_lines(content: bytes) -> list[int]:
    """Return the numbers of the lines that are no JSON object, as an editor counts lines."""
    return [n for n, line in enumerate(content.split(b"\n"), start=1) if not _is_object(line)]


def _is_object(line: bytes) -> bool:
    try:
        return not line.strip() or isinstance(json.loads(line), dict)
    except ValueError:
        return False


def flip(content: bytes, random_stream: random.Random) -> bytes:
    """Return the content with one bit turned over."""
    changed = bytearray(content)
    changed[random_stream.randrange(len(changed))] ^= 1 << random_stream.randrange(8)
    return bytes(changed)


def round_of(events: Path, content: bytes, *, resume: bool) -> list[str]:
    """Return what goes wrong with a record of this content."""
    commands = [("runs", "list"), ("runs", "show", "mine"), ("report", "mine")]
    commands += [("train", "--resume", "mine")] if resume else []
    problems = []
    for words in commands:
        events.write_bytes(content)
        code, told = call(*words)
        if code != 0 or "Traceback" in told:
            problems.append(f"{' '.join(words)} ended with {code}: {told.strip()[-400:]}")
        numbers = [f"line {number:,} was passed over" for number in broken_lines(content)]
        problems += [f"{' '.join(words)}: {said} is not told" for said in numbers[:3]
                     if said not in " ".join(told.split())]  # fmt: skip
    return problems


def main() -> int:
    """Fuzz and print what went wrong; exit 1 when anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume-every", type=int, default=10)
    arguments = parser.parse_args()
    random_stream = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COTERIE_RUNS"] = f"{folder}/runs"
        os.environ["COTERIE_CACHE"] = f"{folder}/cache"
        text = Path(folder, "text.txt")
        text.write_text(TEXT)
        code, told = call(*TRAIN, f"data.source={text}", "--name", "mine")
        assert code == 0, told
        events = Path(folder, "runs", "mine", "events.jsonl")
        sound = events.read_bytes()
        failures = named = 0
        for number in range(arguments.rounds):
            content = flip(sound, random_stream)
            named += bool(broken_lines(content))
            resume = number % arguments.resume_every == 0
            for problem in round_of(events, content, resume=resume):
                failures += 1
                print(f"round {number}: {problem}")
    print(f"{arguments.rounds} flips (seed {arguments.seed}): {named} broke a line's JSON, "
          f"{failures} failures")  # fmt: skip
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
