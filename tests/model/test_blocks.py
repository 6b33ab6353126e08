"""Blocks: block layouts against their formulas, dropouts by their means, counts by operations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from coterie.model import DecoderSettings, count
from coterie.model.dropout import IndependentDropout, StructuredDropout, depth_rate

MOE = {
    "kind": "moe", "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 8}}],
    "experts_per_token": 2, "balance": {"kind": "auxiliary", "coefficient": 0.1},
}  # fmt: skip


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("gate", ["none", "token", "channel"])
@pytest.mark.parametrize("norms", ["shared", "own"])
def test_parallel_branches_are_mixed_by_the_formula(gate, norms, make_decoder):
    block = make_decoder(block_layout={"kind": "parallel", "gate": gate, "norms": norms}).blocks[1]
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    out, _ = block(x)
    normal = rms(x, block.attention_norm.weight)
    other = normal if norms == "shared" else rms(x, block.feedforward_norm.weight)
    attended, (fed, _) = block.attention(normal), block.feedforward(other)
    expected = torch.empty_like(x)
    for row in range(2):
        for t in range(7):
            a, f = attended[row, t], fed[row, t]
            if gate == "none":
                expected[row, t] = x[row, t] + a + f
                continue
            part = block.block_layout
            sums = (part.gate * normal[row, t]).sum(-1) + part.gate_bias
            share = 1 / (1 + torch.exp(-sums))
            expected[row, t] = x[row, t] + share * a + (1 - share) * f
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_a_gate_without_bias_and_weights_takes_half_of_each(make_decoder):
    settings = {"kind": "parallel", "gate": "channel", "gate_bias": False}
    block = make_decoder(block_layout=settings).blocks[0]
    torch.nn.init.zeros_(block.block_layout.gate)
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    normal = rms(x, block.attention_norm.weight)
    expected = x + (block.attention(normal) + block.feedforward(normal)[0]) / 2
    torch.testing.assert_close(block(x)[0], expected)


def test_blocks_may_be_arranged_differently(make_decoder):
    decoder = make_decoder(
        blocks={"side": {"block_layout": "parallel"}, "row": {}}, pattern=["side", "row"]
    )
    assert decoder.blocks[0].feedforward_norm is None
    assert decoder.blocks[1].feedforward_norm is not None


@pytest.mark.parametrize("gate", ["none", "token", "channel"])
@pytest.mark.parametrize("further", [{}, {"value": {}}])
def test_operations_are_counted_exactly(gate, further, make_settings):
    settings = make_settings(block_layout={"kind": "parallel", "gate": gate}, **further)
    decoder = settings.build()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(1, 1, dtype=torch.long))
    one = count(settings).flops_per_token(1)
    attention = 2 * 4 * 16  # of two layers; the counter leaves out the kernel for one query
    assert counter.get_total_flops() == one - attention


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


def test_rows_left_out_are_routed_and_counted_all_the_same(make_decoder, draw_tokens):
    decoder = make_decoder(feedforward=MOE, stochastic_depth=0.9).train()
    tokens = draw_tokens(6, 10)
    targets = tokens.clone()
    targets[0, 4:] = -100
    for seed in range(4):
        torch.manual_seed(seed)
        output = decoder(tokens, targets)
        for account in output.routing:
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
        terms = [each.auxiliary for each in output.routing] + [each.sum() for each in output.mtp]
        loss = output.losses.sum() + sum(terms)
        loss.backward()
        results.append((loss, [each.load for each in output.routing],
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
