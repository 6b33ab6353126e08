"""Structured dropout drops whole blocks and keeps the mean."""

from __future__ import annotations

import pytest
import torch

from coterie.model import DecoderSettings
from coterie.model.dropout import IndependentDropout, StructuredDropout


def test_dropout_is_a_number_or_a_kind(make_settings):
    assert make_settings(dropout=0.25).dropout == IndependentDropout(rate=0.25)
    assert make_settings(dropout=0).dropout == IndependentDropout(rate=0.0)
    wanted = StructuredDropout(rate=0.5, size=4)
    settings = make_settings(dropout={"kind": "structured", "rate": 0.5, "size": 4})
    assert settings.dropout == wanted
    assert DecoderSettings.model_validate(settings.model_dump()).dropout == wanted
    with pytest.raises(ValueError, match="less than 1"):
        make_settings(dropout=1.5)
    with pytest.raises(ValueError, match="do not fill a width of 16"):
        make_settings(dropout={"kind": "structured", "size": 5})


def test_structured_dropout_drops_whole_blocks_and_keeps_the_mean():
    part = StructuredDropout(rate=0.3, size=4).build()
    x = torch.rand(16, 250, 24, dtype=torch.float64) + 1
    torch.manual_seed(0)
    out = part(x)
    blocks = (out / x).unflatten(-1, (6, 4))
    assert torch.equal(blocks > 0, (blocks > 0).all(-1, keepdim=True).expand_as(blocks))
    torch.testing.assert_close(blocks[blocks > 0], torch.full_like(blocks[blocks > 0], 1 / 0.7))
    # 24,000 blocks: a standard deviation of the share dropped is 0.003
    assert float((blocks == 0).double().mean()) == pytest.approx(0.3, abs=0.012)
    assert float(out.mean() / x.mean()) == pytest.approx(1, abs=0.02)
    dropped = (blocks[..., 0] == 0).double()
    together = (dropped[..., 0] * dropped[..., 1]).mean()
    assert float(together) == pytest.approx(0.09, abs=0.02), "blocks are drawn one by one"
    assert torch.equal(part.eval()(x), x)
