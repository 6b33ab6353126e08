"""Checkpoints are whole or not there; damage is found and named; foreign ones are refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from coterie.checkpoint import (
    find_checkpoint,
    find_problem,
    list_checkpoints,
    load_checkpoint,
    load_tensors,
)
from coterie.checkpoint import write as writing
from coterie.checkpoint.tensors import model_tensors
from coterie.foundation.errors import CheckpointError, UserError
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train import RunSettings

TOKENIZER = Bytes().build(())


def test_everything_comes_back_bit_for_bit(tmp_path, save, decoder):
    path = save(tmp_path, 12, loss=0.1 + 0.2, clip=[1.5])
    checkpoint = load_checkpoint(path)
    torch.manual_seed(12)
    expected, model = decoder(), decoder()
    load_tensors(model, checkpoint.model, path)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert all(bool((tensor == 12).all()) for tensor in checkpoint.optimizer.values())
    assert checkpoint.step == 12
    assert checkpoint.state["loss"] == 0.1 + 0.2
    assert RunSettings.model_validate(checkpoint.settings).model == expected.settings
    assert checkpoint.tokenizer == TOKENIZER


def test_a_tied_parameter_is_written_once_and_stays_tied():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

    expected, model = Tied(), Tied()
    tensors = model_tensors(expected)
    assert list(tensors) == ["embedding.weight"]
    load_tensors(model, tensors, "here")
    assert torch.equal(model.head.weight, expected.embedding.weight)
    assert model.head.weight is model.embedding.weight


def test_a_checkpoint_holds_only_safe_formats(tmp_path, save):
    path = save(tmp_path, 1)
    assert sorted(file.suffix for file in path.iterdir()) == [
        ".json", ".json", ".json", ".safetensors", ".safetensors", ".yaml",
    ]  # fmt: skip


def damage_by_truncating(path: Path) -> str:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    return "model.safetensors has"


def damage_by_flipping(path: Path) -> str:
    content = bytearray((path / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "optimizer.safetensors").write_bytes(content)
    return "optimizer.safetensors does not match its checksum"


def damage_by_removing(path: Path) -> str:
    (path / "tokenizer.json").unlink()
    return "tokenizer.json is missing"


def damage_the_manifest(path: Path) -> str:
    file = path / "manifest.json"
    file.write_text(file.read_text()[:40])
    return "manifest.json cannot be read"


def damage_by_no_manifest(path: Path) -> str:
    (path / "manifest.json").unlink()
    return "manifest.json is missing"


def damage_the_list(path: Path) -> str:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["files"]["model.safetensors"]
    file.write_text(json.dumps(manifest))
    return "does not list model.safetensors"


DAMAGES = [
    damage_by_truncating,
    damage_by_flipping,
    damage_by_removing,
    damage_the_manifest,
    damage_by_no_manifest,
    damage_the_list,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, damage, save):
    sound, newest = save(tmp_path, 1), save(tmp_path, 2)
    assert find_checkpoint(tmp_path) == newest
    expected = damage(newest)
    told: list[tuple[Path, str]] = []
    found = find_checkpoint(tmp_path, on_damaged=lambda path, problem: told.append((path, problem)))
    assert found == sound
    assert [path for path, _ in told] == [newest]
    assert expected in told[0][1]
    with pytest.raises(CheckpointError, match=r"step-00000002 is damaged"):
        load_checkpoint(newest)
    with pytest.raises(CheckpointError, match=r"step-00000002 is damaged"):
        find_checkpoint(tmp_path, step=2)


def test_no_sound_checkpoint_is_an_error_that_lists_all(tmp_path, save):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        find_checkpoint(tmp_path / "nothing")
    for step in (1, 2):
        damage_by_truncating(save(tmp_path, step))
    with pytest.raises(CheckpointError, match=r"(?s)All .*step-00000002.*step-00000001"):
        find_checkpoint(tmp_path)


def test_a_missing_step_names_the_nearest(tmp_path, save):
    save(tmp_path, 100)
    with pytest.raises(CheckpointError, match=r"step 1000 .*100"):
        find_checkpoint(tmp_path, step=1000)


def test_a_newer_format_is_refused(tmp_path, save):
    path = save(tmp_path, 1)
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 99'))
    assert "newer than this version" in (find_problem(path) or "")


def test_retention_keeps_the_newest_and_the_best(tmp_path, save):
    for step, loss in enumerate([3.0, 1.0, 2.0, None, 2.5, float("nan")], start=1):
        save(tmp_path, step, keep=2, validation_loss=loss)
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["2", "5", "6"]


def test_of_equally_good_ones_the_newest_is_best(tmp_path, save):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=1, validation_loss=1.0)
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["3"]


def test_saving_a_step_again_replaces_it(tmp_path, save):
    damage_by_truncating(save(tmp_path, 3))
    path = save(tmp_path, 3)
    assert find_problem(path) is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failure_while_writing_leaves_nothing_half_written(tmp_path, monkeypatch, error, save):
    save(tmp_path, 1)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(writing, "save_tokenizer", fail)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_a_kill_left_behind_is_swept_away(tmp_path, save):
    for name in (".step-00000009.partial-abc", ".step-00000001.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == []
    save(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]


def test_another_model_is_refused_and_nothing_is_changed(tmp_path, save, decoder):
    path = save(tmp_path, 1)
    tensors = load_checkpoint(path).model
    other = decoder(width=8)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"another model.*\n.*\(257, 4\) instead of \(257, 8\)"
    ):
        load_tensors(other, tensors, path)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in before.items())
    del tensors["embedding.weight"]
    tensors["stray"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"(?s)missing.*embedding.*unknown.*stray"):
        load_tensors(decoder(), tensors, path)
