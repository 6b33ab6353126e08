"""Recomputation: the same losses and gradients, routing counted once and never done anew."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from coterie.model.checkpointing import _PRODUCTS
from coterie.model.context import ForwardContext

MOE = {
    "feedforward": {
        "kind": "moe", "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 8}}],
        "experts_per_token": 2, "balance": {"kind": "auxiliary", "coefficient": 0.1},
        "router": {"z_loss": 0.01},
    }
}  # fmt: skip


def train_once(decoder, tokens):
    torch.manual_seed(0)
    output = decoder(tokens, tokens.roll(-1, 1))
    loss = output.losses.sum() + sum(each.auxiliary + each.z for each in output.router_stats)
    loss.backward()
    return output, {name: p.grad for name, p in decoder.named_parameters()}


@pytest.mark.parametrize("way", [True, "selective"])
@pytest.mark.parametrize("changes", [{}, MOE, {"dropout": 0.3, **MOE}])
def test_recomputing_changes_neither_loss_nor_gradients(changes, way, make_decoder, draw_tokens):
    tokens = draw_tokens(4, 12)
    plain, again = (make_decoder(torch.float32, **changes).train() for _ in range(2))
    again.activation_checkpointing = way
    expected, expected_gradients = train_once(plain, tokens)
    output, gradients = train_once(again, tokens)
    assert torch.equal(output.losses.sum(), expected.losses.sum())
    for one, other in zip(output.router_stats, expected.router_stats, strict=True):
        assert torch.equal(one.load, other.load)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected_gradients[name])


class HalfDropped(TorchFunctionMode):
    """Drops every other value, as one who draws for several processes drops by other rules."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.dropout:
            return args[0] * (torch.arange(args[0].shape[-1]) % 2)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("way", [True, "selective"])
def test_what_was_drawn_by_other_rules_is_drawn_so_again(way, make_decoder, draw_tokens):
    tokens, found = draw_tokens(4, 12), []
    for again in (False, way):
        decoder = make_decoder(torch.float32, dropout=0.3).train()
        decoder.activation_checkpointing = again
        with HalfDropped():
            loss = decoder(tokens, tokens).losses.sum()
        loss.backward()
        found.append([parameter.grad for parameter in decoder.parameters()])
    assert all(map(torch.equal, *found))


class Products(TorchDispatchMode):
    """Counts the matrix products that are really computed."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func in _PRODUCTS
        return func(*args, **(kwargs or {}))


def test_selective_computes_no_product_of_a_dense_block_again(make_decoder, draw_tokens):
    tokens, counts = draw_tokens(4, 12), {}
    for way in (False, "selective", True):
        decoder = make_decoder(torch.float32).train()
        decoder.activation_checkpointing = way
        with Products() as products:
            train_once(decoder, tokens)
        counts[way] = products.number
    assert counts[False] == counts["selective"] < counts[True]


@pytest.mark.parametrize("way", [True, "selective"])
def test_the_second_pass_takes_the_routing_of_the_first(
    way, make_decoder, draw_tokens, monkeypatch
):
    decoder, tokens = make_decoder(torch.float32, **MOE).train(), draw_tokens(4, 12)
    decoder.activation_checkpointing = way
    output = decoder(tokens, tokens)
    calls = []
    for block in decoder.blocks:
        selector = block.feedforward.router.selector
        monkeypatch.setattr(type(selector), "__call__", lambda *_: calls.append(1))
    output.losses.sum().backward()
    assert calls == [], "nothing is selected in the backward pass"


def test_a_second_pass_is_not_observed_again(make_decoder, draw_tokens):
    moe = MOE["feedforward"] | {"balance": {"kind": "auxiliary", "scope": "global"}}
    tokens, observed = draw_tokens(4, 12), []
    for again in (False, True):
        decoder = make_decoder(torch.float32, feedforward=moe).train()
        decoder.activation_checkpointing = again
        loads = []
        for _ in range(2):  # two micro-batches
            output, _ = train_once(decoder, tokens)
            loads.append([each.load for each in output.router_stats])
        balances = [block.feedforward.balance for block in decoder.blocks]
        observed.append([balance.observed.clone() for balance in balances])
        for balance, first, second in zip(balances, *loads, strict=True):
            assert torch.equal(balance.observed, first + second)
    for plain, recomputed in zip(*observed, strict=True):
        assert torch.equal(plain, recomputed)


def test_evaluation_and_generation_do_not_recompute(make_decoder, draw_tokens, plain_cache):
    decoder, tokens = make_decoder(), draw_tokens()
    expected = decoder(tokens).logits
    decoder.activation_checkpointing = True
    with torch.no_grad():
        assert torch.equal(decoder(tokens).logits, expected)
    cached = decoder(tokens, context=ForwardContext(cache=plain_cache(decoder))).logits
    torch.testing.assert_close(cached, expected, rtol=0, atol=1e-12)
