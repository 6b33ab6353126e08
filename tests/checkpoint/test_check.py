"""What is signed anew but makes no sense is found; so is every byte that was not signed."""

from __future__ import annotations

import importlib.util
import json
import random
import struct
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from coterie.checkpoint import find_checkpoint, find_problem, load_checkpoint
from coterie.foundation.errors import CheckpointError
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.saving import save_tokenizer

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("fuzz", ROOT / "scripts" / "fuzz_checkpoints.py")
assert SPEC is not None
assert SPEC.loader is not None
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)


def edit(name, change):
    """Return a damage that changes the values of a JSON or YAML file."""

    def damage(path):
        file = path / name
        values = yaml.safe_load(file.read_text())
        change(values)
        dump = json.dumps if name.endswith("json") else yaml.safe_dump
        file.write_text(dump(values))

    return damage


def put(name, **values):
    return edit(name, lambda old: old.update(values))


def inside(name, *keys, value):
    """Return a damage that sets one value deep in a file."""

    def change(values):
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return edit(name, change)


def content(name, text):
    return lambda path: (path / name).write_bytes(text)


def tensors(name, change):
    def damage(path):
        found = {key: value.clone() for key, value in load_file(path / name).items()}
        change(found)
        save_file(found, path / name)

    return damage


def header(name, length=None, text=None):
    """Return a damage of the header of a safetensors file."""

    def damage(path):
        raw = (path / name).read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        body = raw[8 : 8 + size] if text is None else text
        said = len(body) if length is None else length
        (path / name).write_bytes(struct.pack("<Q", said) + body + raw[8 + size :])

    return damage


def first(values, change):
    name = min(values)
    values[name] = change(values[name])


def drop(values):
    del values[min(values)]


def other_tokenizer(path):
    save_tokenizer(Characters().build(["ab"]), path / "tokenizer.json")


def unlist_tokenizer(values):
    del values["files"]["tokenizer.json"]


MODEL, MOMENTS = "model.safetensors", "optimizer.safetensors"
SENSELESS = {
    "state.step null": (put("state.json", step=None), "step"),
    "state.step": (put("state.json", step=3), "state.json is of step 3"),
    "state.data []": (put("state.json", data=[]), "data"),
    "state.data": (put("state.json", data="x" * 64), "data"),
    "state.tokens": (put("state.json", tokens=-1), "tokens"),
    "state.tokens float": (put("state.json", tokens=1.5), "tokens"),
    "state.loss": (put("state.json", loss="low"), "loss"),
    "state.loss nan": (put("state.json", loss=float("nan")), "NaN"),
    "state.seconds": (put("state.json", train_seconds=True), "train_seconds"),
    "state.unknown": (put("state.json", luck=1), "luck"),
    "state.format": (put("state.json", format=1), "format 1"),
    "state.clip": (put("state.json", clip=[-1.0]), "clip"),
    "state.scale": (put("state.json", loss_scale={"scale": 0.0, "good_steps": 1}), "scale"),
    "state.missing": (edit("state.json", lambda v: v.pop("random")), "random"),
    "state list": (content("state.json", b"[]"), "state.json"),
    "state depth": (content("state.json", b"[" * 10**5), "nested too deeply"),
    "random.torch": (inside("state.json", "random", "torch", value="AAAA"), "no generator accepts"),
    "random.torch text": (inside("state.json", "random", "torch", value="ä"), "no generator"),
    "random.numpy position": (inside("state.json", "random", "numpy", 2, value=10**9), "numpy"),
    "random.numpy key": (inside("state.json", "random", "numpy", 1, 5, value=-1), "numpy"),
    "random.numpy kind": (inside("state.json", "random", "numpy", 0, value="PCG64"), "numpy"),
    "random.python": (inside("state.json", "random", "python", 1, value=[1, 2]), "no generator"),
    "random.python gauss": (inside("state.json", "random", "python", 2, value="x"), "python"),
    "config list": (content("config.yaml", b"[1, 2]\n"), "config.yaml holds"),
    "config broken": (content("config.yaml", b"seed: [\n"), "YAML"),
    "config bytes": (content("config.yaml", b"\xff\xfe\n"), "UTF-8"),
    "config model": (edit("config.yaml", lambda v: v.pop("model")), "model"),
    "config model list": (put("config.yaml", model=[]), "model"),
    "config layers": (inside("config.yaml", "model", "layers", value=2), "another model"),
    "config many layers": (inside("config.yaml", "model", "layers", value=2**30), ""),
    "config width": (inside("config.yaml", "model", "width", value=8), "another model"),
    "config giant": (inside("config.yaml", "model", "vocab_size", value=2**62), ""),
    "config vocabulary": (inside("config.yaml", "model", "vocab_size", value=9), "257 tokens"),
    "tokenizer other": (other_tokenizer, "tokenizer.json is not the one"),
    "tokenizer none": (content("tokenizer.json", b"{}"), "tokenizer"),
    "tokenizer list": (content("tokenizer.json", b"[]"), "tokenizer"),
    "manifest step": (put("manifest.json", step=4), "its name says step 2"),
    "manifest no step": (edit("manifest.json", lambda v: v.pop("step")), "step"),
    "manifest step text": (put("manifest.json", step="2"), "step"),
    "manifest format": (put("manifest.json", format=True), "format"),
    "manifest files": (put("manifest.json", files=[]), "files"),
    "manifest files null": (inside("manifest.json", "files", MODEL, value=None), "files"),
    "manifest outside": (inside("manifest.json", "files", "../x", value={"bytes": 1, "sha256":
                         "0" * 64}), "no part of a checkpoint"),
    "manifest tokenizer": (edit("manifest.json", unlist_tokenizer), "contradicts itself"),
    "manifest no tokenizer": (
        edit("manifest.json", lambda v: (unlist_tokenizer(v), v.update(tokenizer=None))[0]),
        "no model trains without one",
    ),
    "weights dropped": (tensors(MODEL, drop), "missing"),
    "weights renamed": (tensors(MODEL, lambda v: v.update(x=v.pop(min(v)))), "missing"),
    "weights reshaped": (tensors(MODEL, lambda v: first(v, lambda t: t[:1].clone())), "shape"),
    "weights half": (tensors(MODEL, lambda v: first(v, torch.Tensor.half)), "float16"),
    "weights double": (tensors(MODEL, lambda v: first(v, torch.Tensor.double)), "float64"),
    "weights whole": (tensors(MODEL, lambda v: first(v, torch.Tensor.long)), "int64"),
    "weights nan": (tensors(MODEL, lambda v: first(v, lambda t: t * torch.nan)), "not finite"),
    "moments dropped": (tensors(MOMENTS, drop), "tensors, its manifest says"),
    "moments stray": (tensors(MOMENTS, lambda v: v.update(x=v.pop(min(v)))), "no parameter"),
    "moments reshaped": (tensors(MOMENTS, lambda v: first(v, lambda t: t[:1].clone())), "shape"),
    "moments half": (tensors(MOMENTS, lambda v: first(v, torch.Tensor.half)), "float16"),
    "moments inf": (tensors(MOMENTS, lambda v: first(v, lambda t: t / 0.0)), "not finite"),
    "header beyond the file": (header(MODEL, length=10**9), "cannot be read"),
    "header endless": (header(MODEL, length=2**64 - 1), "cannot be read"),
    "header empty": (header(MOMENTS, length=0), "cannot be read"),
    "header list": (header(MOMENTS, text=b"[]"), "cannot be read"),
    "header deep": (header(MODEL, text=b'{"a":' * 9999), "cannot be read"),
    "header type": (header(MODEL, text=b'{"a":{"dtype":"F9","shape":[],"data_offsets":[0,1]}}'),
                    "cannot be read"),
    "no header": (content(MODEL, b"\0"), "cannot be read"),
    "empty": (content(MOMENTS, b""), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", SENSELESS)
def test_what_is_signed_and_senseless_is_named_and_the_one_before_used(tmp_path, save, case):
    damage, said = SENSELESS[case]
    sound, newest = save(tmp_path, 1), save(tmp_path, 2)
    damage(newest)
    fuzz.sign(newest)
    told: list[str] = []
    assert find_checkpoint(tmp_path, on_damaged=lambda _, problem: told.append(problem)) == sound
    assert said in told[0]
    assert str(tmp_path) not in told[0]
    if case != "weights nan":  # they are read, by those who name the checkpoint itself
        with pytest.raises(CheckpointError, match="step-00000002 is damaged"):
            load_checkpoint(newest)


def first_format(path: Path) -> None:
    """Turn a checkpoint into one as the first version wrote it."""
    edit("state.json", lambda values: values.pop("format"))(path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({
        "format": 1, "step": manifest["step"], "files": {
            name: {"bytes": len(data := (path / name).read_bytes()), "sha256": fuzz.digest(data)}
            for name in manifest["files"]
        },
    }))  # fmt: skip


def test_the_first_format_is_still_read(tmp_path, save):
    path = save(tmp_path, 1, loss=2.5)
    first_format(path)
    assert find_problem(path) is None
    assert load_checkpoint(path).state["loss"] == 2.5


def test_a_damaged_manifest_cannot_pass_as_one_of_the_first_format(tmp_path, save):
    path = save(tmp_path, 1)
    file = path / "manifest.json"
    sound = file.read_text()
    for key in ("sha256", "run", "tokenizer"):
        values = json.loads(sound)
        del values[key]
        for version in (1, 2):
            file.write_text(json.dumps({**values, "format": version}))
            assert find_problem(path) is not None
    whole = json.loads(sound)
    files = {name: {k: v for k, v in each.items() if k != "tensors"}
             for name, each in whole["files"].items()}  # fmt: skip
    file.write_text(json.dumps({"format": 1, "step": 1, "files": files}))
    assert "format 2, its manifest of step 1 and format 1" in (find_problem(path) or "")


def test_names_of_folders_that_are_no_steps_do_not_matter(tmp_path, save):
    path = save(tmp_path, 1)
    best = path.rename(tmp_path / "best")
    assert find_problem(best) is None
    assert "its name says step 7" in (find_problem(best.rename(tmp_path / "step-00000007")) or "")


@pytest.mark.parametrize("signed", [False, True])
def test_random_damage_is_found_and_no_sound_one_is_doubted(tmp_path, signed):
    seed = random.randrange(10**6)
    stream = random.Random(seed)
    fuzz.make(tmp_path / "sound", 1)
    sound = fuzz.make(tmp_path / "sound", 2)
    for _ in range(12):
        told = fuzz.one_round(sound, tmp_path, stream, signed=signed)
        assert told in ("found", "cannot be found", "unchanged"), f"seed {seed}: {told}"
