"""What lies in files: parts by name, put together again, and refused where they do not fit."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import CheckpointError
from coterie.quantise import (
    Int4Tensor,
    Int8Tensor,
    QuantisedTensor,
    from_stored,
    stored_kinds,
    to_stored,
)

OWN = {"a.query": torch.zeros(6, 40), "b.up": torch.zeros(2, 6, 40), "norm": torch.ones(40)}


@pytest.fixture
def stored() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {
        "a.query": Int8Tensor.of(torch.randn(6, 40)),
        "b.up": Int4Tensor.of(torch.randn(2, 6, 40)),
        "norm": torch.ones(40),
    }
    return to_stored(made)


def test_round_trip(stored):
    names = {"a.query.data8", "a.query.scale", "b.up.packed", "b.up.scale", "norm"}
    assert set(stored) == names
    assert stored_kinds(stored) == {"a.query": "int8", "b.up": "int4"}
    again = from_stored(stored, OWN)
    assert set(again) == set(OWN)
    for name in ("a.query", "b.up"):
        assert isinstance(again[name], QuantisedTensor)
        assert again[name].shape == OWN[name].shape
    assert all(torch.equal(each, stored[name]) for name, each in to_stored(again).items())


def test_parts_that_do_not_fit_are_named(stored):
    stored["b.up.scale"] = stored["b.up.scale"][:, :, :1]
    with pytest.raises(CheckpointError, match=r"b\.up\.scale has shape \(2, 6, 1, 2\) .*\(2, 6, 2"):
        from_stored(stored, OWN)


def test_a_part_of_another_type_is_named(stored):
    stored["a.query.data8"] = stored["a.query.data8"].int()
    with pytest.raises(CheckpointError, match=r"a\.query\.data8 .* type int32 instead of .* int8"):
        from_stored(stored, OWN)


def test_half_a_weight_is_none(stored):
    del stored["a.query.scale"]
    assert "a.query" not in stored_kinds(stored)
    assert "a.query" not in from_stored(stored, OWN)
