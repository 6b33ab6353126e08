"""Off the CPU a training step asks the device for nothing: meta tensors have no values to give."""

from __future__ import annotations

import contextlib

import pytest
import torch

from coterie.api.given import resolve
from coterie.model.context import ForwardContext
from coterie.presets import preset_names


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """Leave out autocast, which torch has not for meta tensors."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


def loss_on_meta(model, dtype=torch.bfloat16):
    """Compute a training step's gradients without any values."""
    with torch.device("meta"):
        decoder = model.build().to(dtype).train()
        tokens = torch.zeros(2, model.context, dtype=torch.long)
    output = decoder(tokens, tokens, ForwardContext())
    loss = output.losses.sum() + sum(each.sum() for each in output.mtp)
    for stats in output.router_stats:
        loss = loss + stats.auxiliary + stats.z + stats.entropy_term
    loss.backward()
    return decoder


@pytest.mark.parametrize("preset", preset_names())
def test_no_preset_reads_a_value_in_its_passes(preset):
    model = resolve(preset, scale="tiny").settings.model
    model = model.model_copy(update={"vocab_size": 64, "additive": ()})
    decoder = loss_on_meta(model)
    assert all(p.grad is not None for p in decoder.parameters())
