"""AdamW of 8 bits beside AdamW in float32, cut into pieces, and taken up again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coterie.train.live_memory import LiveMemory
from coterie.train.optimizer import AdamW, AdamW8bit, RoleParameter
from coterie.train.optimizer import adamw8bit as module

SHAPES = {"pack": (4, 256, 64), "odd": (61, 70), "small": (31,)}  # 65,536, 4,270 and 31 values


def parameters() -> list[RoleParameter]:
    torch.manual_seed(0)
    return [
        RoleParameter(
            name, "bias" if name == "small" else "matrix", nn.Parameter(torch.randn(shape))
        )
        for name, shape in SHAPES.items()
    ]


def walk(optimizer, moved: list[RoleParameter], steps: range) -> None:
    for step in steps:
        draws = torch.Generator().manual_seed(step)
        for each in moved:
            noise = torch.randn(each.tensor.shape, generator=draws)
            each.tensor.grad = each.tensor.detach() + noise  # a bowl, seen through noise
        optimizer.step(step, 0.5)


@pytest.fixture
def small_pieces(monkeypatch):
    pytest.importorskip("torchao")
    monkeypatch.setattr(module, "_PIECE", 1 << 13)


def test_weights_stay_near_those_of_adamw_and_small_ones_are_equal(small_pieces):
    ours, theirs, start = parameters(), parameters(), parameters()
    settings = {"learning_rate": 0.02, "learning_rates": {"bias": 0.01}, "weight_decay": 0.1}
    walk(AdamW8bit(**settings).build(ours), ours, range(20))
    walk(AdamW(**settings).build(theirs), theirs, range(20))
    for one, other, old in zip(ours, theirs, start, strict=True):
        way = (other.tensor - old.tensor).norm()
        apart = (one.tensor - other.tensor).norm() / way
        assert apart.item() < (1e-5 if one.name == "small" else 0.03)
        assert one.tensor.grad is not None


def test_pieces_change_nothing(small_pieces, monkeypatch):
    cut, whole = parameters(), parameters()
    walk(AdamW8bit().build(cut), cut, range(4))
    monkeypatch.setattr(module, "_PIECE", 1 << 20)
    walk(AdamW8bit().build(whole), whole, range(4))
    for one, other in zip(cut, whole, strict=True):
        assert torch.equal(one.tensor, other.tensor)


def test_state_is_a_quarter_plain_and_goes_on_bit_for_bit(small_pieces, monkeypatch):
    whole, parts, settings = parameters(), parameters(), AdamW8bit()
    through = settings.build(whole)
    walk(through, whole, range(6))
    first = settings.build(parts)
    assert first.state() == {}
    walk(first, parts, range(3))
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    assert {type(tensor) for tensor in kept.values()} == {torch.Tensor}
    assert kept["adamw8bit.pack.exp_avg_codes"].dtype == torch.uint8
    assert kept["adamw8bit.odd.exp_avg_sq_rest"].shape == (4270 % 256,)
    held = sum(tensor.nbytes for name, tensor in kept.items() if not name.endswith(".step"))
    tables = 2 * 1024 * (8 + 1)
    assert settings.state_bytes(parts) == held + tables
    assert held < 0.27 * AdamW().state_bytes(parts)
    monkeypatch.setattr(module, "_PIECE", 1 << 14)  # what is kept does not depend on pieces
    again = settings.build(parts)
    assert again.load_state(kept) == set(kept)
    walk(again, parts, range(3, 6))
    end = through.state()
    for name, tensor in again.state().items():
        assert torch.equal(tensor, end[name]), name
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.tensor, other.tensor)


def test_state_of_another_shape_has_no_place(small_pieces):
    moved = parameters()[1:2]
    optimizer = AdamW8bit().build(moved)
    walk(optimizer, moved, range(1))
    kept = dict(optimizer.state())
    kept["adamw8bit.odd.exp_avg_scale"] = torch.zeros(5)
    assert AdamW8bit().build(moved).load_state(kept) == set()


def test_codes_are_counted_by_their_bytes(small_pieces):
    moved = parameters()
    optimizer = AdamW8bit().build(moved)
    live = LiveMemory()
    with live:
        walk(optimizer, moved, range(1))
    weights = sum(each.tensor.nbytes for each in moved)  # and as many bytes of gradients
    expected = 2 * weights + AdamW8bit().state_bytes(moved)
    assert sum(live.live.values()) == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize("table", [{"learning_rates": {"matrx": 0.1}}, {"decayed": ("matrx",)}])
@pytest.mark.parametrize("kind", [AdamW, AdamW8bit])
def test_a_role_that_no_decoder_has_is_refused_in_each_table(kind, table):
    with pytest.raises(ValueError, match="did you mean “matrix”"):
        kind(**table)
