"""Quantised tensors stand where float ones stood: what is read in part stays in few bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from coterie.quantise import Int4Tensor, Int8Tensor, QuantisedTensor, stored_bytes

CLASSES = [Int8Tensor, Int4Tensor]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.kind)
def quantised(request) -> QuantisedTensor:
    torch.manual_seed(0)
    return request.param.of(torch.randn(6, 8, 40))


def test_says_what_the_weight_was_and_takes_less(quantised):
    assert quantised.shape == (6, 8, 40)
    assert quantised.dtype == torch.float32
    sizes = {"int8": 6 * 8 * (40 + 2 * 2), "int4": 6 * 8 * 2 * (16 + 4)}
    assert stored_bytes([quantised, quantised]) == sizes[quantised.kind]


def test_an_expert_is_read_without_the_others(quantised):
    values = quantised.dequantise()
    with torch.inference_mode():
        chosen = [
            quantised[4], quantised.unbind(0)[4], quantised[4:5][0],
            quantised.index_select(0, torch.tensor([4]))[0],
        ]  # fmt: skip
    for each in chosen:
        assert isinstance(each, QuantisedTensor)
        assert torch.equal(each.dequantise(), values[4])


def test_other_operations_get_the_values(quantised):
    values, x = quantised.dequantise(), torch.randn(3, 40)
    assert torch.equal(F.linear(x, quantised[2]), F.linear(x, values[2]))
    assert torch.equal(quantised.mT, values.mT)
    assert torch.equal(quantised.flatten(0, 1), values.flatten(0, 1))
    assert torch.equal(quantised[:, 2], values[:, 2])
    rows = quantised[0]
    places = torch.tensor([[1, 5], [5, 0]])
    assert torch.equal(F.embedding(places, rows), values[0][places])


def test_moves_and_copies_stay_quantised(quantised):
    parameter = torch.nn.Parameter(quantised, requires_grad=False)
    for other in (quantised.clone(), copy.deepcopy(parameter), quantised.to("meta")):
        assert isinstance(other, type(quantised))
        assert other.shape == quantised.shape
    halved = quantised.to(torch.bfloat16)
    assert isinstance(halved, type(quantised))
    assert halved.dequantise().dtype == torch.bfloat16
    assert torch.equal(halved.scale, quantised.scale)
    assert not isinstance(quantised.to(torch.int32), QuantisedTensor)


def test_is_not_written_to(quantised):
    with pytest.raises(RuntimeError, match=f"{quantised.kind} weights can be read and not written"):
        quantised.add_(1.0)
    with pytest.raises(RuntimeError, match="not written"):
        quantised.copy_(torch.zeros(6, 8, 40))
