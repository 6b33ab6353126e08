"""A model to use: only what is used is read, nothing is drawn, and damage to it is found."""

from __future__ import annotations

import pytest
import torch

from coterie.checkpoint import load_model
from coterie.checkpoint.check import find_problem
from coterie.checkpoint.tensor_file import read_tensors
from coterie.checkpoint.tensors import model_tensors
from coterie.foundation.errors import CheckpointError


def flip(path, place=-3):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_weights_are_those_of_the_file_and_no_chance_is_used(save, tmp_path):
    path = save(tmp_path, 3)
    before = torch.get_rng_state()
    loaded = load_model(path)
    assert torch.equal(torch.get_rng_state(), before)
    own = model_tensors(loaded.decoder)
    for name, tensor in read_tensors(path / "model.safetensors").items():
        assert torch.equal(own[name], tensor)
    assert not loaded.decoder.training


def test_moments_are_read_by_those_who_train_on(save, tmp_path):
    path = save(tmp_path, 3)
    flip(path / "optimizer.safetensors")
    assert load_model(path).step == 3
    assert "optimizer.safetensors does not match" in (find_problem(path) or "")


@pytest.mark.parametrize("file", ["model.safetensors", "config.yaml", "tokenizer.json"])
def test_damage_to_what_is_used_is_found(file, save, tmp_path):
    path = save(tmp_path, 3)
    flip(path / file)
    with pytest.raises(CheckpointError, match=f"{file} does not match its checksum"):
        load_model(path)


def test_a_file_of_moments_cut_short_is_found_unread(save, tmp_path):
    path = save(tmp_path, 3)
    file = path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors has"):
        load_model(path)
