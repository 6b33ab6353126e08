"""What every variant of every part promises, checked for each member of each union.

A new member of a union is picked up by itself. What a kind cannot do without, and variants beyond
the kinds, stand in `variants/*.yaml`.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load, save

from coterie.foundation.settings import kind_of, members
from coterie.model import (
    MLP,
    Attention,
    Balance,
    BlockLayout,
    Dropout,
    Embedding,
    FeedForward,
    Kernel,
    Norm,
    Position,
    count,
    parameter_roles,
    routed_layers,
    update_balance,
)
from coterie.model.context import ForwardContext
from coterie.model.experts import Noise, Score, Select

VARIANT_FILES = Path(__file__).with_name("variants")
FILES = [yaml.safe_load(path.read_text()) for path in sorted(VARIANT_FILES.glob("*.yaml"))]
NEEDS: dict[str, dict[str, Any]] = {k: v for file in FILES for k, v in file["needs"].items()}
MOE = NEEDS["moe"]


def each(name: str, annotation: Any, place) -> list[Any]:
    found = []
    for member in members(annotation):
        kind = kind_of(member)
        needs = {} if name == "kernel" else NEEDS.get(kind, {})
        found.append(pytest.param(place({"kind": kind} | needs), id=f"{name}-{kind}"))
    return found


def moe(**changes: Any) -> dict[str, Any]:
    return {"feedforward": MOE | changes}


VARIANTS = [
    *each("attention", Attention, lambda value: {"attention": value}),
    *each("position", Position, lambda value: {"position": value}),
    *each("norm", Norm, lambda value: {"norm": value}),
    *each("embedding", Embedding, lambda value: {"embedding": value}),
    *each("feedforward", FeedForward, lambda value: {"feedforward": value}),
    *each("block_layout", BlockLayout, lambda value: {"block_layout": value}),
    *each("mlp", MLP, lambda v: {"feedforward": {"kind": "dense", "mlp": v | {"bias": True}}}),
    *each("expert", MLP, lambda v: moe(experts=[{"mlp": v | {"bias": True}, "count": 4}])),
    *each("score", Score, lambda value: moe(router={"score": value, "z_loss": 0.1})),
    *each("select", Select, lambda value: moe(router={"select": value})),
    *each("noise", Noise, lambda value: moe(router={"noise": value})),
    *each("balance", Balance, lambda value: moe(balance=value)),
    *each("kernel", Kernel, lambda value: moe(kernel=value)),
    *(
        pytest.param(changes, id=name)
        for file in FILES
        for name, changes in file["variants"].items()
    ),
]
ROUTER = {"score": Score, "select": Select, "noise": Noise}
every_variant = pytest.mark.parametrize("changes", VARIANTS)


def everything(output):
    """Return a number that all parts of the output add to."""
    terms = [each.auxiliary + each.z + each.entropy_term for each in output.router_stats]
    terms += [each.sum() for each in output.mtp]
    terms += [each.square().sum() for each in (output.values, output.embedding) if each is not None]
    return output.losses.sum() + sum(terms)


def mixtures(decoder):
    return [block.feedforward for block in decoder.blocks if hasattr(block.feedforward, "router")]


@every_variant
def test_counts_what_is_built(changes, make_settings, make_decoder, plain_cache, draw_tokens):
    settings = make_settings(**changes)
    decoder, counts = make_decoder(**changes), count(settings)
    assert counts.parameters == sum(parameter.numel() for parameter in decoder.parameters())
    cache = plain_cache(decoder)
    decoder(draw_tokens(1, 5), context=ForwardContext(cache=cache))
    assert counts.cache_bytes_per_token * 5 == cache.elements * 4
    assert set(parameter_roles(decoder)) == {name for name, _ in decoder.named_parameters()}


@every_variant
def test_no_token_sees_the_future(changes, make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**changes), draw_tokens(2, 11)
    before = decoder(tokens).logits
    for at in (0, 4, 10):
        changed = tokens.clone()
        changed[:, at] = (changed[:, at] + 7) % 23
        after = decoder(changed).logits
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=0, atol=1e-12)
        assert (after[:, at] - before[:, at]).abs().max() > 1e-6


@every_variant
@pytest.mark.parametrize("pieces", [
    (4, 1, 6), *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ((1,) * 11, (10, 1)))
])  # fmt: skip
def test_cached_equals_uncached(changes, pieces, make_decoder, plain_cache, draw_tokens):
    decoder, tokens = make_decoder(**changes), draw_tokens(2, 11)
    cache = plain_cache(decoder)
    parts = [
        decoder(piece, context=ForwardContext(cache=cache)).logits
        for piece in tokens.split(pieces, dim=1)
    ]
    torch.testing.assert_close(
        torch.cat(parts, 1), decoder(tokens).logits, rtol=0, atol=1e-12
    )  # fmt: skip
    assert cache.length == 11


@every_variant
def test_gradients_reach_every_parameter(changes, make_decoder, draw_tokens):
    decoder = make_decoder(**changes).train()
    tokens = draw_tokens(8, 12)
    torch.manual_seed(0)
    output = decoder(tokens, tokens.roll(-1, 1))
    everything(output).backward()
    loads = (
        torch.cat([each.load for each in output.router_stats])
        if output.router_stats
        else torch.ones(1)
    )
    assert (loads > 0).all(), "the batch must visit every expert for this test to mean something"
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        packed = parameter.grad.flatten(1) if parameter.ndim == 3 else parameter.grad.flatten()
        assert packed.abs().sum(-1).gt(0).all(), name


@every_variant
def test_saves_and_loads_bit_equal(changes, make_decoder, draw_tokens):
    decoder, other = make_decoder(torch.float32, **changes), make_decoder(seed=1, **changes).float()
    for part in mixtures(decoder):
        part.balance.update(torch.arange(part.num_experts))
    tokens = draw_tokens()
    assert not torch.equal(decoder(tokens).logits, other(tokens).logits)
    other.load_state_dict(load(save(decoder.state_dict())))
    assert torch.equal(decoder(tokens).logits, other(tokens).logits)


@every_variant
def test_runs_under_bfloat16_autocast(changes, make_decoder, draw_tokens):
    decoder, tokens = make_decoder(torch.float32, **changes).train(), draw_tokens(8, 12)
    torch.manual_seed(0)
    exact = decoder(tokens, tokens).losses.sum()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = decoder(tokens, tokens)
    assert output.losses.dtype == torch.float32
    for each_layer in output.router_stats:
        assert each_layer.probabilities.dtype == torch.float32, "routers stay in float32"
    torch.testing.assert_close(output.losses.sum(), exact, rtol=0.03, atol=0)
    output.losses.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in decoder.parameters())


@every_variant
def test_routing_conserves_tokens(changes, make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**changes), draw_tokens(3, 10)
    targets = tokens.clone()
    targets[0, 3:] = -100
    output = decoder(tokens, targets)
    assert torch.equal(output.losses != 0, targets != -100)
    parts = mixtures(decoder)
    assert len(output.router_stats) == len(parts)
    for part, routing in zip(parts, output.router_stats, strict=True):
        per_token = part.router.selector.experts_per_token
        assert routed_layers(decoder)[routing.layer] is part
        assert int(routing.tokens) == 23
        least = per_token if part.router.selector.fixed else 1
        assert 23 * least <= int(routing.load.sum()) <= 23 * per_token
        assert int(routing.dropped) == 0, "nothing is dropped outside training"
        assert routing.load.dtype == torch.int64
        assert not routing.load.requires_grad
        assert 0 <= float(routing.entropy) <= torch.tensor(part.num_experts).log() + 1e-9


@every_variant
def test_evaluating_changes_nothing(changes, make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**changes), draw_tokens()
    state = copy.deepcopy(decoder.state_dict())
    with torch.inference_mode():
        first = decoder(tokens).logits
    decoder.train()
    output = decoder(tokens, tokens)  # what was made while generating must serve training
    output.losses.sum().backward()
    # With and without gradients, another computation may measure as the fastest.
    rounding = 1e-12 if "measured" in str(changes) else 0
    torch.testing.assert_close(decoder.eval()(tokens).logits, first, rtol=0, atol=rounding)
    assert all(torch.equal(state[name], value) for name, value in decoder.state_dict().items())
    update_balance(decoder, {each.layer: each.load for each in output.router_stats})


def pick(annotation: Any, number: int) -> dict[str, Any]:
    """Return settings of one member of a union; counting on, every member comes up."""
    choices = members(annotation)
    kind = kind_of(choices[number % len(choices)])
    return {"kind": kind} | NEEDS.get(kind, {})


def covering_case(number: int) -> dict[str, Any]:
    """Return settings with one member of every union: so many cases as the longest has hold all."""
    routed = MOE | {
        "experts": [{"mlp": pick(MLP, number + 1), "count": 4}],
        "router": {axis: pick(union, number) for axis, union in ROUTER.items()},
        "balance": pick(Balance, number),
        "kernel": {"kind": kind_of(members(Kernel)[number % len(members(Kernel))])},
    }
    return {
        "layers": 2,
        "attention": pick(Attention, number),
        "position": pick(Position, number // 2),
        "norm": pick(Norm, number),
        "embedding": pick(Embedding, number),
        "block_layout": pick(BlockLayout, number // 2),
        "dropout": pick(Dropout, number) | {"rate": 0.2},
        "blocks": {
            "dense": {"feedforward": {"kind": "dense", "mlp": pick(MLP, number)}},
            "routed": {"feedforward": routed},
        },
        "pattern": ["dense", "routed"],
    }


@pytest.mark.parametrize(
    "quarter", [0, *(pytest.param(each, marks=pytest.mark.exhaustive) for each in (1, 2, 3))]
)
def test_compiled_equals_plain(quarter, make_settings):
    lines = [
        json.dumps([str(number), make_settings(**covering_case(number)).model_dump(mode="json")])
        for number in range(quarter, len(members(Kernel)), 4)
    ]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compiled.py")],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"after {done.stdout}\n{done.stderr}"
    differences = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert len(differences) == len(lines)
    wrong = {name: value for name, value in differences.items() if float(value) > 1e-9}
    assert not wrong
