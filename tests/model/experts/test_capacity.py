"""Capacity: exact drops, causal, no room for padding, nothing outside training."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.foundation.settings import kind_of, members
from coterie.model.context import ForwardContext
from coterie.model.experts import Kernel, MixtureOfExperts
from coterie.model.experts.capacity import overflow_mask

COMPUTES = [kind_of(member) for member in members(Kernel)]


def naive(indices, valid, experts, factor):
    """Let tokens queue up one by one: by position, then by row."""
    batch, length, per_token = indices.shape
    tokens = batch * length if valid is None else int(valid.sum())
    room = math.ceil(round(factor * tokens * per_token / experts, 6))
    used, crowded = [0] * experts, torch.zeros_like(indices, dtype=torch.bool)
    for t in range(length):
        for b in range(batch):
            for slot in range(per_token):
                e = int(indices[b, t, slot])
                if e == experts or (valid is not None and not valid[b, t]):
                    continue
                crowded[b, t, slot] = used[e] >= room
                used[e] += 1
    return crowded


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.1, 1.25, 9.0])
@pytest.mark.parametrize("masked", [False, True])
def test_room_is_given_by_position_then_by_row(factor, masked):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        indices = torch.rand(3, 7, 6, generator=generator).argsort(-1)[..., :2]  # 5: no expert
        valid = torch.rand(3, 7, generator=generator) < 0.7 if masked else None
        crowded = overflow_mask(indices, valid, 5, factor)
        assert torch.equal(crowded, naive(indices, valid, 5, factor))


def test_room_is_not_rounded_up_by_floating_point():
    indices = torch.zeros(1, 50, 1, dtype=torch.int64)  # 1.1 · 50 / 5 = 11.000000000000002
    assert int((~overflow_mask(indices, None, 5, 1.1)).sum()) == 11


@pytest.mark.parametrize(
    ("factor", "tokens", "room"), [(1.2, 125, 30), (1.1, 50, 11), (1.4, 25, 7), (1.21, 100, 25)]
)
def test_room_is_the_exact_product_rounded_up(factor, tokens, room):
    # In float32 1.2 · 25 is 30.000001: a place too many.
    indices = torch.zeros(1, tokens, 1, dtype=torch.int64)
    for valid in (None, torch.ones(1, tokens, dtype=torch.bool)):
        assert int((~overflow_mask(indices, valid, 5, factor)).sum()) == room


def build(**changes):
    pack = {"mlp": {"kind": "mlp", "width": 4}, "count": 4}
    base = {"experts": [pack], "experts_per_token": 2, "capacity_factor": 0.6}
    part = MixtureOfExperts.model_validate(base | changes).build(8).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.6, generator=generator)
    return part.train()


def draw(batch=3, length=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, 8, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("compute", COMPUTES)
def test_dropped_pairs_contribute_nothing_and_are_counted(compute):
    part, x = build(kernel=compute), draw()
    out, account = part(x)
    routing = part.router(x.flatten(0, 1))
    crowded = naive(routing.indices.view(3, 8, 2), None, 4, 0.6).flatten(0, 1)
    assert int(account.dropped) == int(crowded.sum()) > 0
    assert torch.equal(account.load, torch.bincount(routing.indices.flatten(), minlength=4))
    flat, expected = x.flatten(0, 1), torch.zeros(24, 8, dtype=torch.float64)
    (pack,) = part.experts
    for e in range(4):
        own = tuple(None if w is None else w[e] for w in pack.weights())
        gate = (routing.gates * (routing.indices == e) * ~crowded).sum(-1, keepdim=True)
        expected = expected + gate * pack.run(flat, own, torch.nn.functional.linear)
    torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-12)
    out.sum().backward()
    assert torch.isfinite(part.router.weight.grad).all()


def test_nothing_is_dropped_outside_training_or_without_a_capacity():
    part, x = build(), draw()
    free = build(capacity_factor=None)
    assert int(free(x)[1].dropped) == 0
    out, account = part.eval()(x)
    assert int(account.dropped) == 0
    torch.testing.assert_close(out, free(x)[0], rtol=0, atol=0)


def test_ample_room_changes_nothing():
    out, account = build(capacity_factor=4.0)(draw())
    assert int(account.dropped) == 0
    torch.testing.assert_close(out, build(capacity_factor=None)(draw())[0], rtol=0, atol=1e-12)


def test_padding_takes_no_room_and_does_not_change_who_finds_some():
    part, x = build(), draw(2, 6)
    _, alone = part(x)
    padded = torch.cat((x, draw(2, 5)), 1)
    valid = torch.zeros(2, 11, dtype=torch.bool)
    valid[:, :6] = True
    out, account = part(padded, ForwardContext(valid=valid))
    assert int(account.dropped) == int(alone.dropped) > 0
    assert torch.equal(account.load, alone.load)
    torch.testing.assert_close(out[:, :6], part(x)[0], rtol=0, atol=1e-12)


def test_no_text_sees_its_own_or_anothers_future_while_training(make_decoder, draw_tokens):
    moe = {"kind": "moe", "experts": [{"mlp": {"kind": "mlp", "width": 4}, "count": 4}],
           "experts_per_token": 2, "capacity_factor": 0.7}  # fmt: skip
    decoder, tokens = make_decoder(feedforward=moe).train(), draw_tokens(3, 11)
    before = decoder(tokens)
    assert sum(int(each.dropped) for each in before.router_stats) > 0
    moved = 0.0
    for row in range(3):
        for at in (2, 6, 10):
            changed = tokens.clone()
            changed[row, at] = (changed[row, at] + 7) % 23
            after = decoder(changed).logits
            torch.testing.assert_close(after[:, :at], before.logits[:, :at], rtol=0, atol=1e-12)
            torch.testing.assert_close(
                after[:row, at], before.logits[:row, at], rtol=0, atol=1e-12
            )  # rows above come first at the same position
            others = [other for other in range(3) if other != row]
            moved = max(moved, (after[others] - before.logits[others]).abs().max().item())
    assert moved > 0, "texts do compete for room, so the test above means something"
