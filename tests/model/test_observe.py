"""What is seen of a pass is what the pass computed, and looking changes nothing."""

from typing import Any

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.model.context import ForwardContext
from coterie.model.observe import Steering, Watcher, steered
from coterie.model.routed import routed_layers

MOE = {"kind": "moe", "experts": [{"count": 6}], "experts_per_token": 2, "balance": "bias"}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}
SELECTORS = {
    "top_k": {"kind": "top_k"},
    "dynamic": {"kind": "dynamic", "mass": 0.7},
    "groups": {"kind": "group_limited", "groups": 3, "groups_per_token": 2},
}


class Streams:
    def __init__(self):
        self.after = []

    def layer_done(self, layer, hidden):
        self.after.append(hidden)


@pytest.fixture
def routed(make_decoder):
    def make(**changes):
        decoder = make_decoder(feedforward=MOE | changes.pop("feedforward", {}), **changes)
        generator = torch.Generator().manual_seed(5)
        for part in routed_layers(decoder).values():
            part.router.weight.data.normal_(generator=generator)
            bias = part.balance.selection_bias
            if bias is not None:
                bias.copy_(torch.randn(bias.shape, generator=generator) * 0.1)
        return decoder

    return make


@torch.no_grad()
def test_what_is_seen_is_what_was_computed(routed, draw_tokens):
    decoder, tokens, streams = routed(), draw_tokens(1), Streams()
    with Watcher(decoder) as watcher:
        output = decoder(tokens, context=ForwardContext(observers=(streams,)))
        seen: Any = watcher.take(9)
    assert torch.equal(seen[1].lens, output.logits[0])
    for layer, stats, after in zip(seen, output.router_stats, streams.after, strict=True):
        assert torch.equal(layer.routing.indices, stats.indices)
        assert torch.equal(layer.routing.shares, stats.probabilities)
        chosen = stats.probabilities.gather(-1, stats.indices)
        torch.testing.assert_close(layer.routing.gates, chosen / chosen.sum(-1, keepdim=True))
        torch.testing.assert_close(layer.residual, after[0].float().norm(dim=-1))
        bias = routed_layers(decoder)[layer.layer].balance.selection_bias
        ranked = (stats.probabilities + bias).sort(-1, descending=True).values
        torch.testing.assert_close(layer.routing.margin, ranked[:, 1] - ranked[:, 2])
    block, embedded = decoder.blocks[0], decoder.embedding(tokens, None, None)
    rotated = {}
    block.attention.register_forward_pre_hook(lambda m, args: rotated.update(context=args[1]))
    decoder(tokens)
    added = block.attention(block.attention_norm(embedded), rotated["context"])
    torch.testing.assert_close(seen[0].attention, added[0].float().norm(dim=-1))
    fed, _ = block.feedforward(block.feedforward_norm(embedded + added))
    torch.testing.assert_close(seen[0].feedforward, fed[0].float().norm(dim=-1))


@pytest.mark.parametrize("attention", [{"kind": "grouped", "heads": 2, "window": 4}, MLA])
@torch.no_grad()
def test_attention_is_that_of_each_token_alone(routed, draw_tokens, attention):
    decoder, tokens = routed(attention=attention, position="none"), draw_tokens(1)
    values = {}

    def keep(module, args, output):
        values["out"] = output

    with Watcher(decoder, lens=False) as watcher:
        decoder(tokens)
        rows: Any = watcher.take(9)[0].attended
    assert [len(row) for row in rows] == list(range(1, 10))
    for t, row in enumerate(rows):
        assert abs(float(row.sum()) - 1) < 1e-6
        if "window" in attention:
            assert (row > 0).tolist() == [t - s < 4 for s in range(t + 1)]
    if attention is MLA:
        return
    part, block = decoder.blocks[0].attention, decoder.blocks[0]
    x = block.attention_norm(decoder.embedding(tokens, None, None))
    query, key = ((x @ w.T)[0].unflatten(-1, (2, 8)) for w in (part.query, part.key))
    for t in (2, 8):
        own = slice(max(0, t - 3), t + 1)
        weights = [(key[own, h] @ query[t, h] / 8**0.5).softmax(0) for h in (0, 1)]
        torch.testing.assert_close(rows[t][own].double(), (weights[0] + weights[1]) / 2)


@torch.no_grad()
def test_looking_changes_no_bit_and_leaves_nothing(routed, draw_tokens):
    decoder, tokens = routed(), draw_tokens(1)
    before = decoder(tokens).logits
    with Watcher(decoder):
        during = decoder(tokens).logits
    assert torch.equal(before, during)
    assert torch.equal(before, decoder(tokens).logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in decoder.modules())
    with pytest.raises(AssertionError, match="one text"), Watcher(decoder):
        decoder(draw_tokens(2))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in decoder.modules())


@pytest.mark.parametrize("name", SELECTORS)
@torch.no_grad()
def test_experts_are_masked_and_forced(routed, draw_tokens, name):
    decoder = routed(feedforward={"router": {"select": SELECTORS[name]}})
    tokens, plain = draw_tokens(1), decoder(draw_tokens(1)).logits
    steering = Steering({0: (1, 2)}, {1: (4,)})
    with steered(decoder, steering), Watcher(decoder) as watcher:
        decoder(tokens)
        seen: Any = watcher.take(9)
    first, second = (each.routing for each in seen)
    assert not torch.isin(first.indices, torch.tensor([1, 2])).any()
    assert (second.indices == 4).any(-1).all()
    real = second.indices < 6
    expected = second.shares.gather(-1, second.indices.clamp(max=5)).where(real, torch.tensor(0.0))
    if name != "dynamic":  # whose gates are not renormalised
        expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(second.gates, expected)
    if name == "top_k":
        bias = routed_layers(decoder)[0].balance.selection_bias
        ranked = (first.shares + bias)[:, [0, 3, 4, 5]].topk(2).indices
        assert torch.equal(first.indices, torch.tensor([0, 3, 4, 5])[ranked])
        assert (first.margin < 0).any(), "a hand from outside overruled the router"
    assert torch.equal(plain, decoder(tokens).logits)


@torch.no_grad()
def test_a_layer_without_its_experts_adds_nothing(routed, draw_tokens):
    decoder = routed()
    with steered(decoder, Steering({0: tuple(range(6))})), Watcher(decoder) as watcher:
        decoder(draw_tokens(1))
        seen: Any = watcher.take(9)[0]
    assert (seen.routing.indices == 6).all()
    assert not seen.feedforward.any()


@pytest.mark.parametrize(
    ("steering", "told"),
    [
        (Steering({7: (0,)}), "Layer 7 has no experts; layers with experts: 0, 1"),
        (Steering({1: (6,)}), "Expert 1:6 cannot be masked: layer 1 has the experts 0 to 5"),
        (Steering({}, {0: (1, 2, 3)}), "no more than 2 can be forced"),
        (Steering({0: (3,)}, {0: (3,)}), "0:3 is both masked and forced"),
    ],
)
def test_impossible_steering_is_refused(routed, steering, told):
    with pytest.raises(UserError, match=told), steered(routed(), steering):
        pass
