"""Stochastic depth leaves rows out more often with depth and keeps the mean."""

from __future__ import annotations

import pytest
import torch

from coterie.model.dropout import depth_rate


def test_stochastic_depth_leaves_rows_out_more_often_with_depth(make_decoder):
    decoder = make_decoder(layers=4, stochastic_depth=0.4).train()
    assert [block.depth.rate for block in decoder.blocks] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert depth_rate(0.5, 9, 10) == 0.5
    block = decoder.blocks[3]
    x = torch.randn(1, 3, 16, dtype=torch.float64).expand(4000, 3, 16)
    torch.manual_seed(0)
    out, _ = block(x)
    kinds = torch.unique((out - x).flatten(1).round(decimals=9), dim=0, return_counts=True)
    shares = sorted((kinds[1] / 4000).tolist())
    # neither branch, attention alone, the feed-forward branch alone, both
    assert shares == pytest.approx(sorted([0.16, 0.24, 0.24, 0.36]), abs=0.03)


@pytest.mark.parametrize("block_layout", ["sequential", "parallel"])
def test_stochastic_depth_keeps_each_update_s_mean(block_layout, make_decoder):
    # Of one layer: what attention adds has the mean that evaluation adds.
    block = (
        make_decoder(layers=1, stochastic_depth=0.3, block_layout=block_layout).blocks[0].train()
    )
    x = torch.randn(1, 2, 16, dtype=torch.float64)
    update = block.attention(block.attention_norm(x))
    torch.manual_seed(1)
    many = block.depth(update.expand(20_000, 2, 16))
    torch.testing.assert_close(many.mean(0), update[0], rtol=0.03, atol=0.0)
