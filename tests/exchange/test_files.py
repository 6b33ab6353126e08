"""Weights that cannot be read are refused before anything is built."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coterie.exchange.files import INDEX, SINGLE, read_json
from coterie.exchange.huggingface import import_folder
from coterie.exchange.imported import ExchangeError

QUERY = "model.layers.1.self_attn.q_proj.weight"


def change_tensors(folder, change):
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_file(refused, folder, kept):
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:kept])
    assert f"{SINGLE} is not a whole safetensors file" in refused()


@pytest.fixture
def sharded(folder):
    """Cut the weights in two, with an index; return what the index holds."""
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    placed = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        placed |= dict.fromkeys(part, file)
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
    return placed


def test_shards_need_their_index_and_each_other(refused, folder, sharded):
    assert import_folder(folder).architecture == "mixtral"
    index = (folder / INDEX).read_text()
    (folder / INDEX).unlink()
    assert "no model.safetensors.index.json that lists them" in refused()
    (folder / INDEX).write_text(index)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks 1 of its 2 files: model-00002-of-00002.safetensors" in refused()


@pytest.mark.parametrize("place", ["../other/model.safetensors", "/etc/passwd", "weights.bin", 3])
def test_an_index_cannot_lead_elsewhere(refused, folder, sharded, place):
    sharded[QUERY] = place
    (folder / INDEX).write_text(json.dumps({"weight_map": sharded}))
    assert "no “weight_map” from names to files of this folder" in refused()


def test_an_index_that_promises_too_much(refused, folder, sharded):
    sharded["model.layers.9.more"] = sharded[QUERY]
    (folder / INDEX).write_text(json.dumps({"weight_map": sharded}))
    assert "lists tensors that no file holds: model.layers.9.more" in refused()


def test_a_tensor_in_two_shards(refused, folder, sharded):
    second = folder / "model-00002-of-00002.safetensors"
    twice = next(name for name, file in sharded.items() if "00001" in file)
    save_file(load_file(second) | {twice: torch.ones(1)}, second)
    assert f"{twice} is in both" in refused()


class Trap:
    """Writes a file when it is unpickled, as malicious weights could do anything."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "w.pt", "a.ckpt"])
def test_pickles_are_never_opened(refused, folder, tmp_path, name):
    mark = tmp_path / "sprung"
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    for path in (folder, folder / name):
        found = refused(path)
        assert "can run any program" in found
        assert "safetensors" in found
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists()  # the trap works


def test_a_pickle_beside_safetensors_is_left_alone(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert import_folder(folder).architecture == "mixtral"
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_named_safetensors(refused, folder, tmp_path):
    (folder / SINGLE).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "not a whole safetensors file" in refused()
    assert not (tmp_path / "sprung").exists()


def test_everyone_may_read_what_is_exported(folder):
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("content", [b"1" * 10_000, b"[" * 100_000, b"\xff", b'{"a":1,"a":2}', b""])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_readers_stumble_over_is_refused_in_words(name, content, tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"model_type": "llama"}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExchangeError, match=name):
        read_json(tmp_path / name)
