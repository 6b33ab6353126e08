"""Activation checkpointing: the same losses and gradients, routing counted once, never redone."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.model.context import ForwardContext
from coterie.model.replay import RoutingReplay

RECOMPUTED = {
    "noise": {"router": {"noise": "learned"}},
    "jitter": {"router": {"noise": {"kind": "jitter", "epsilon": 0.5}}},
    "dynamic": {"router": {"select": {"kind": "dynamic", "mass": 0.6, "entropy": 0.1}}},
    "dropout": {"expert_dropout": 0.5},
    "capacity_factor": {"capacity_factor": 0.8},
    "global": {"balance": {"kind": "auxiliary", "coefficient": 0.5, "scope": "global"}},
    "all": {
        "router": {"noise": "gaussian", "select": {"kind": "dynamic", "mass": 0.6}},
        "expert_dropout": 0.3, "capacity_factor": 0.9,
        "balance": {"kind": "auxiliary", "coefficient": 0.5, "scope": "global"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECOMPUTED)
def test_recomputing_repeats_chance_and_gives_the_same_gradients(name, make_decoder, draw_tokens):
    moe = {"kind": "moe", "experts": [{"mlp": {"kind": "mlp", "width": 4}, "count": 4}],
           "experts_per_token": 2}  # fmt: skip
    changes = {"feedforward": moe | RECOMPUTED[name], "dropout": 0.2}
    tokens = draw_tokens(3, 12)

    def run(again):
        decoder = make_decoder(**changes).train()
        decoder.activation_checkpointing = again
        torch.manual_seed(7)
        loads = []
        for _ in range(2):  # two micro-batches
            output = decoder(tokens, tokens.roll(-1, 1))
            terms = [r.auxiliary + r.z + r.entropy_term for r in output.router_stats]
            (output.losses.sum() + sum(terms)).backward()
            loads.append([r.load.tolist() for r in output.router_stats])
        chance = torch.rand(1)
        return loads, chance, {n: p.grad for n, p in decoder.named_parameters()}

    loads, chance, gradients = run(again=False)
    again_loads, again_chance, again_gradients = run(again=True)
    assert again_loads == loads
    assert torch.equal(again_chance, chance), "the second pass consumes no chance of its own"
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(again_gradients[parameter], gradient, rtol=0, atol=1e-11)
    assert math.isfinite(sum(float(g.abs().sum()) for g in gradients.values()))


def test_choices_given_from_outside_are_repeated_and_recorded_ones_give_the_same(
    make_decoder, draw_tokens
):
    moe = {"kind": "moe", "experts": [{"mlp": {"kind": "mlp", "width": 4}, "count": 4}],
           "experts_per_token": 2}  # fmt: skip
    decoder, tokens = make_decoder(feedforward=moe).eval(), draw_tokens(3, 12)

    def read(routes, **said):
        return decoder(tokens, context=ForwardContext(routes=routes, **said))

    def held(routes, name):
        return torch.stack([getattr(each, name) for each in routes])

    recorded = [RoutingReplay() for _ in decoder.blocks]
    free = read(recorded, router_stats=False)
    first = held(recorded, "indices")
    again = [RoutingReplay(each, compares=True) for each in first]
    assert torch.equal(read(again).logits, free.logits)
    assert torch.equal(held(again, "own"), first)
    turned = [RoutingReplay((each + 1) % 4, compares=True) for each in first]
    other = read(turned)
    assert not torch.equal(other.logits, free.logits)
    assert torch.equal(torch.stack([each.indices for each in other.router_stats]), (first + 1) % 4)
    assert torch.equal(held(turned, "own")[0], first[0])
