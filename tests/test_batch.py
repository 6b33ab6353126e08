"""TokenBatch: what it holds stays together when it is cut, joined and weighed."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from coterie.batch import IGNORE, TokenBatch


def full(rows=6, width=4):
    """A batch in which every field is set, all values different."""
    numbers = torch.arange(rows * width).reshape(rows, width)
    return TokenBatch(
        numbers, numbers + 100, numbers / 7, numbers + 200, numbers + 300, torch.arange(rows)
    )


def equal(one, other):
    return all(
        torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
    )


def test_micro_batches_joined_are_the_batch():
    batch = full()
    for pieces in (1, 2, 6):
        parts = list(batch.split(pieces))
        assert [part.tokens.shape[0] for part in parts] == [6 // pieces] * pieces
        assert equal(TokenBatch.concatenate(parts), batch)
    with pytest.raises(ValueError, match="6 rows cannot be cut into 4"):
        list(batch.split(4))


def test_what_is_not_held_stays_so():
    batch = TokenBatch(full().tokens, full().targets)
    for each in (batch.to("cpu"), *batch.split(2), TokenBatch.concatenate([batch, batch])):
        assert (each.weights, each.documents, each.positions, each.sources) == (None,) * 4


def test_every_field_moves_with_the_batch():
    moved = full().to("meta")
    assert {getattr(moved, field.name).device.type for field in fields(moved)} == {"meta"}


def test_only_valid_targets_weigh():
    batch = full()
    assert float(batch.total_weight()) == pytest.approx(float(batch.weights.sum()))
    targets = batch.targets.clone()
    targets[0] = IGNORE
    one = TokenBatch(batch.tokens, targets, batch.weights)
    assert float(one.total_weight()) == pytest.approx(float(batch.weights[1:].sum()))
    plain = TokenBatch(batch.tokens, targets)
    assert plain.total_weight().dtype == torch.int64
    assert int(plain.total_weight()) == int(plain.valid.sum()) == 20
