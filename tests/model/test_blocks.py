"""Blocks: dropout and stochastic depth in them, recomputed or not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

MOE = {
    "kind": "moe", "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 8}}],
    "experts_per_token": 2, "balance": {"kind": "auxiliary", "coefficient": 0.1},
}  # fmt: skip


def test_blocks_may_be_arranged_differently(make_decoder):
    decoder = make_decoder(
        blocks={"side": {"block_layout": "parallel"}, "row": {}}, pattern=["side", "row"]
    )
    assert decoder.blocks[0].feedforward_norm is None
    assert decoder.blocks[1].feedforward_norm is not None


def test_rows_left_out_are_routed_and_counted_all_the_same(make_decoder, draw_tokens):
    decoder = make_decoder(feedforward=MOE, stochastic_depth=0.9).train()
    tokens = draw_tokens(6, 10)
    targets = tokens.clone()
    targets[0, 4:] = -100
    for seed in range(4):
        torch.manual_seed(seed)
        output = decoder(tokens, targets)
        for account in output.router_stats:
            assert int(account.load.sum()) == 2 * 54
            assert float(account.auxiliary.detach()) > 0


DROPS = [
    {"dropout": {"kind": "structured", "rate": 0.3, "size": 4}},
    {"stochastic_depth": 0.5},
    {
        "dropout": 0.2,
        "stochastic_depth": 0.5,
        "block_layout": {"kind": "parallel", "gate": "token"},
    },
]


@pytest.mark.parametrize("changes", DROPS)
def test_nothing_is_dropped_in_evaluation_and_something_in_training(
    changes, make_decoder, draw_tokens
):
    decoder, plain = (
        make_decoder(**changes),
        make_decoder(block_layout=changes.get("block_layout", "sequential")),
    )
    tokens = draw_tokens()
    assert torch.equal(decoder(tokens).logits, plain(tokens).logits)
    torch.manual_seed(0)
    first = decoder.train()(tokens).logits
    assert not torch.allclose(first, plain(tokens).logits)
    assert not torch.allclose(first, decoder(tokens).logits), "each pass draws anew"
    torch.manual_seed(0)
    assert torch.equal(first, decoder(tokens).logits), "and the same from the same chance"


@pytest.mark.parametrize("changes", [
    *(drop | {"feedforward": MOE} for drop in DROPS),
    {"feedforward": MOE, "mtp": {"depth": 2}, "dropout": 0.2},
    {"block_layout": {"kind": "parallel", "gate": "channel", "norms": "own"}, "feedforward": MOE},
])  # fmt: skip
def test_recomputing_repeats_every_draw(changes, make_decoder, draw_tokens):
    tokens = draw_tokens(4, 12)
    results = []
    for recompute in (False, True):
        decoder = make_decoder(torch.float32, **changes).train()
        decoder.activation_checkpointing = recompute
        torch.manual_seed(3)
        output = decoder(tokens, tokens.roll(-1, 1))
        terms = [each.auxiliary for each in output.router_stats] + [
            each.sum() for each in output.mtp
        ]
        loss = output.losses.sum() + sum(terms)
        loss.backward()
        results.append((loss, [each.load for each in output.router_stats],
                        [p.grad for p in decoder.parameters()]))  # fmt: skip
    (loss, loads, gradients), (other_loss, other_loads, other_gradients) = results
    assert torch.equal(loss, other_loss)
    assert all(torch.equal(a, b) for a, b in zip(loads, other_loads, strict=True))
    for one, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_dropout_of_the_embedding_follows_its_kind(make_decoder, draw_tokens):
    decoder = make_decoder(dropout={"kind": "structured", "rate": 0.5, "size": 8}).train()
    seen = []
    decoder.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokens = draw_tokens(4, 12)
    decoder(tokens)
    ratio = (seen[0] / F.embedding(tokens, decoder.embedding.weight)).unflatten(-1, (2, 8))
    assert set(ratio.round(decimals=6).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(ratio[..., 0] > 0, (ratio > 0).all(-1))
