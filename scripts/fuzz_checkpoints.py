"""Damages checkpoints at random, with and without signing them anew, and holds them to be found.

An unsigned change must always be found. Of those that are signed anew, every one that contradicts
the rest must be; a changed weight, moment, seed or figure cannot be found by its nature. Nothing
may end in a traceback, and no sound checkpoint may be doubted.

Run: python scripts/fuzz_checkpoints.py --rounds 400 --seed 1
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import load_file, save_file

# Tests load this program by its path.
sys.path.insert(0, str(Path(__file__).parent))

from damage import (
    at_most,
    files,
    flip_bit,
    from_other,
    overwrite,
    remove,
    rename,
    swap,
    truncate,
)

from coterie.checkpoint import find_checkpoint, find_problem, save_checkpoint
from coterie.foundation.errors import CheckpointError
from coterie.model import DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train import RunSettings
from coterie.train.randomness import random_state
from coterie.train.resume import find_misfit

MANIFEST = "manifest.json"
TENSORS = ("model.safetensors", "optimizer.safetensors")
RECORDS = ("state.json", "config.yaml")
CONTRADICTING = (swap, remove, rename)
ODD: tuple[Any, ...] = (None, [], {}, "x", -1, 0.5, True, 2**70, [[]], "\u202e")


class Done(NamedTuple):
    """What was done to a checkpoint, and whether it contradicts what else it says."""

    what: str
    contradicts: bool


def digest(content: bytes) -> str:
    """Return a SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sign(path: Path) -> None:
    """Sign a checkpoint anew: sizes and checksums of its files, and that of the manifest."""
    try:
        if (path / MANIFEST).is_fifo():
            return
        manifest = json.loads((path / MANIFEST).read_text())
        for name, entry in manifest["files"].items():
            if (path / name).is_fifo():
                continue  # reading it would block
            content = (path / name).read_bytes()
            entry.update(bytes=len(content), sha256=digest(content))
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        pass  # so damaged that it cannot be signed as a whole
    try:
        manifest = {**manifest}
    except (NameError, TypeError):
        return
    manifest.pop("sha256", None)
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    manifest["sha256"] = digest(canonical.encode())
    (path / MANIFEST).write_text(json.dumps(manifest))


def corrupt(path: Path, stream: random.Random) -> Done:
    """Damage a checkpoint in one random way."""
    return stream.choice(DAMAGES)(path, stream)


def damage_bytes(path: Path, stream: random.Random) -> Done:
    """Damage files as disks and people do."""
    how = stream.choice([*CONTRADICTING, flip_bit, overwrite, truncate, from_other])
    what = how(stream, path, path.with_name("step-00000001")) or "nothing"
    cut = how is truncate and any(name in what for name in TENSORS)
    return Done(what, cut or how in CONTRADICTING)


def garble(path: Path, stream: random.Random) -> Done:
    """Overwrite one file with noise."""
    file = stream.choice(files(path))
    file.write_bytes(stream.randbytes(stream.randrange(1, 4000)))
    return Done(f"{file.name} garbled", True)


def block(path: Path, stream: random.Random) -> Done:
    """Put a pipe in a file's place, which blocks whoever reads it."""
    file = stream.choice(files(path))
    file.unlink()
    os.mkfifo(file)
    return Done(f"{file.name} is a pipe", True)


def shift(path: Path, stream: random.Random) -> Done:
    """Let the state say another step than the folder's name."""
    file = path / "state.json"
    state = json.loads(file.read_text())
    state["step"] += stream.randrange(1, 9)
    file.write_text(json.dumps(state))
    return Done("step of the state", True)


def edit_record(path: Path, stream: random.Random) -> Done:
    """Put an odd value anywhere into a record."""
    name = stream.choice([*RECORDS, MANIFEST])
    file = path / name
    values = yaml.safe_load(file.read_text())
    where = stream.choice(places(values))
    inner = values
    for key in where[:-1]:
        inner = inner[key]
    odd = stream.choice(ODD)
    same = type(inner[where[-1]]) is type(odd) and inner[where[-1]] == odd
    inner[where[-1]] = odd
    file.write_text(yaml.safe_dump(values) if name.endswith("yaml") else json.dumps(values))
    if same:
        return damage_bytes(path, stream)
    return Done(f"{name}: {'.'.join(map(str, where))} = {odd!r}", _contradicts(name, where, odd))


def places(values: Any, most: int = 4) -> list[list[Any]]:
    """Return the way to every value, a few of those in a list."""
    found: list[list[Any]] = []
    keys = list(values) if isinstance(values, dict) else range(len(values))[:most]
    for key in keys:
        found.append([key])
        if isinstance(values[key], dict | list):
            found += [[key, *below] for below in places(values[key])]
    return found


def _contradicts(name: str, where: list[Any], odd: Any) -> bool:
    """Whether an odd value there must be found, though it is signed."""
    if name == "config.yaml":
        return where == ["model"]
    if name == MANIFEST:
        return where[0] in ("format", "step") or where == ["files"]
    plausible = {  # null and any number or text may have been meant
        "loss": odd is None or type(odd) in (int, float),
        "validation_loss": odd is None or type(odd) in (int, float),
        "train_seconds": type(odd) in (int, float),
        "data": odd is None,
        "loss_scale": odd is None,
        "clip": odd == [] and isinstance(odd, list),
        "random": True,
    }
    return not plausible.get(where[0], False)


def edit_tensor(path: Path, stream: random.Random) -> Done:
    """Drop, rename, reshape, retype or spoil one tensor."""
    name = stream.choice(TENSORS)
    tensors = {key: value.clone() for key, value in load_file(path / name).items()}
    key = stream.choice(sorted(tensors))
    what = stream.choice(["drop", "rename", "reshape", "half", "whole", "nan", "add", "noise"])
    tensor = tensors[key]
    if what == "drop":
        del tensors[key]
    elif what == "rename":
        tensors[key + "x"] = tensors.pop(key)
    elif what == "reshape":
        tensors[key] = tensor[None].clone()
    elif what in ("half", "whole"):
        tensors[key] = tensor.to(torch.float16 if what == "half" else torch.int64)
    elif what == "nan":
        tensors[key] = torch.full_like(tensor, torch.nan)
    elif what == "add":
        tensors["stray"] = torch.zeros(3)
    else:
        tensors[key] = tensor + 1.0
    save_file(tensors, path / name)
    return Done(f"{name}: {what} {key}", what != "noise")


def edit_header(path: Path, stream: random.Random) -> Done:
    """Let a safetensors header claim another length, or hold something else."""
    file = path / stream.choice(TENSORS)
    content = file.read_bytes()
    length = stream.choice([0, 1, 2**20, 2**40, 2**64 - 1])
    if stream.random() < 0.5:
        file.write_bytes(length.to_bytes(8, "little") + content[8:])
        return Done(f"{file.name}: header of {length}", True)
    text = stream.choice([b"[]", b"{", b"{}", b"[" * 9999, b"\xff" * 9, b'{"a":{"dtype":"F32"}}'])
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    return Done(f"{file.name}: header {text[:9]!r}", True)


Damage = Callable[[Path, random.Random], Done]
DAMAGES: tuple[Damage, ...] = (
    damage_bytes, damage_bytes, damage_bytes, garble, block, shift, edit_record, edit_record,
    edit_tensor, edit_tensor, edit_header,
)  # fmt: skip


def make(root: Path, step: int) -> Path:
    """Write a sound checkpoint of a small routed decoder with AdamW's moments."""
    tokenizer = Bytes().build(())
    model = DecoderSettings.model_validate({
        "vocab_size": tokenizer.vocab_size, "layers": 1, "width": 8, "context": 8,
        "attention": {"kind": "grouped", "heads": 2},
        "feedforward": {"kind": "moe", "experts": [{"count": 2}], "experts_per_token": 1,
                        "balance": {"kind": "bias"}},
    })  # fmt: skip
    decoder, moments = model.build(), {}
    for name, parameter in decoder.named_parameters():
        moments[f"adamw.{name}.step"] = torch.tensor(float(step))
        moments[f"adamw.{name}.exp_avg"] = torch.ones_like(parameter)
        moments[f"adamw.{name}.exp_avg_sq"] = torch.ones_like(parameter)
    return save_checkpoint(
        root, step, model=decoder, optimizer_state=moments, settings=RunSettings(model=model),
        state={"random": random_state(), "loss": 2.5, "tokens": step * 32 * 8, "data": "0" * 64},
        tokenizer=tokenizer,
    )  # fmt: skip


def _same(path: Path, sound: Path) -> bool:
    """Whether a damage changed nothing."""
    if sorted(os.listdir(path)) != sorted(os.listdir(sound)):
        return False
    pairs = [(path / name, sound / name) for name in os.listdir(sound)]
    return all(one.is_file() and one.read_bytes() == two.read_bytes() for one, two in pairs)


def one_round(sound: Path, folder: Path, stream: random.Random, *, signed: bool) -> str:
    """Damage a copy beside a sound earlier checkpoint and return how that went."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound.parent, root)
    path = root / sound.name
    if (alarm := find_problem(path) or find_misfit(path)) is not None:
        return f"false alarm: {alarm}"
    done = corrupt(path, stream)
    if _same(path, sound):
        return "unchanged"
    if signed:
        sign(path)
    try:
        with at_most(60):
            found = find_checkpoint(root, also=find_misfit) != path
            problem = find_problem(path) or find_misfit(path) or ""
    except CheckpointError as error:
        return f"the sound one before was not used: {done.what}: {error}"
    except BaseException as error:
        return f"traceback: {done.what}: {error!r}"
    if "it cannot be used" in problem:
        return f"unnamed: {done.what}: {problem}"
    if not found and (not signed or done.contradicts):
        return f"missed: {done.what}"
    return "found" if found else "cannot be found"


def main() -> int:
    """Fuzz and print what went wrong; exit 1 when anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="of each, unsigned and signed")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    stream = random.Random(arguments.seed)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "sound"), 1)
        sound = make(Path(folder, "sound"), 2)
        for signed in (False, True):
            counts: Counter[str] = Counter()
            for number in range(arguments.rounds):
                told = one_round(sound, Path(folder), stream, signed=signed)
                counts[told.partition(":")[0]] += 1
                if told not in ("found", "cannot be found", "unchanged"):
                    failures += 1
                    print(f"round {number}, {'signed' if signed else 'unsigned'}: {told}")
            print("signed" if signed else "unsigned", dict(counts))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
