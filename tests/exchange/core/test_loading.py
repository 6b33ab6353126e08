"""Tensors that do not fit the settings are all named, and nothing is left behind."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from coterie.exchange.files import SINGLE

QUERY = "model.layers.1.self_attn.q_proj.weight"


def change_tensors(folder, change):
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def test_missing_unexpected_and_misshapen_tensors_at_once(refused, folder):
    def spoil(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.0.block_sparse_moe.experts.2.w3.weight"]
        tensors["model.layers.7.rest"] = torch.ones(1)
        tensors[QUERY] = torch.ones(16, 8)

    change_tensors(folder, spoil)
    found = refused()
    assert "2 tensors are missing" in found
    assert "experts.2.w3.weight, model.norm.weight" in found
    assert "1 tensors are unexpected: model.layers.7.rest" in found
    assert f"{QUERY} has shape [16, 8] instead of [16, 16]" in found


@pytest.mark.parametrize("value", [float("nan"), 1e300])
def test_weights_that_are_no_numbers_are_refused(folder, refused, value):
    change_tensors(folder, lambda tensors: tensors.update({QUERY: tensors[QUERY].double() * value}))
    assert QUERY in refused()
