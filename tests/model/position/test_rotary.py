"""Rotary positions: the formula, distances, layouts, pairs."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.model.position import RotaryPosition, Span


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotary_turns_pairs_by_the_formula(layout, fraction):
    part = RotaryPosition(layout=layout, fraction=fraction, theta=100.0).build(16, 4)
    x = torch.randn(1, 6, 2, 8)
    got = part.rotation(Span(3, 6, x.device))(x)
    turned = int(8 * fraction)
    for t in range(6):
        for i in range(turned // 2):
            pair = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + turned // 2)
            angle = (3 + t) * 100.0 ** (-2 * i / turned)
            a, b = (x[0, t, :, channel] for channel in pair)
            expected = (
                a * math.cos(angle) - b * math.sin(angle),
                b * math.cos(angle) + a * math.sin(angle),
            )
            for channel, value in zip(pair, expected, strict=True):
                torch.testing.assert_close(got[0, t, :, channel], value)
    assert torch.equal(got[..., turned:], x[..., turned:])


def test_rotary_depends_on_distance_alone_far_beyond_its_table():
    part = RotaryPosition().build(16, 4)
    query, key = torch.randn(2, 1, 1, 1, 16)

    def product(at, distance):
        turned = part.rotation(Span(at, 1, query.device))(query)
        return float((turned * part.rotation(Span(at - distance, 1, key.device))(key)).sum())

    for at in (5, 1000, 100_000):
        assert product(at, 3) == pytest.approx(product(3, 3), abs=1e-4)


@pytest.mark.parametrize(
    ("attention", "fraction"),
    [
        ({"kind": "grouped", "heads": 2, "head_dim": 5}, 0.8),
        ({"kind": "mla", "heads": 1, "kv_rank": 5, "nope_dim": 3, "rope_dim": 4}, 1.0),
    ],
)
def test_interleaved_pairs_may_begin_anywhere(attention, fraction, make_decoder, draw_tokens):
    position = {"kind": "rotary", "layout": "interleaved", "fraction": fraction}
    decoder, tokens = make_decoder(attention=attention, position=position), draw_tokens()
    whole = decoder(tokens).logits
    torch.testing.assert_close(decoder(tokens[:1, :1]).logits, whole[:1, :1])


ORIGINAL, CONTEXT = 16, 64
# Our settings, and the parameters that mean the same to transformers.
SCALINGS = {
    "none": ({}, {"rope_type": "default"}),
    "linear": ({"factor": 4}, {"rope_type": "linear", "factor": 4.0}),
    "ntk": ({"factor": 4}, {"rope_type": "default", "rope_theta": 1e4 * 4 ** (16 / 14)}),
    "dynamic": (
        {"factor": 3, "original_context": ORIGINAL}, {"rope_type": "dynamic", "factor": 3.0},
    ),
    "yarn": (
        {"factor": 4, "original_context": ORIGINAL, "beta_fast": 2, "beta_slow": 0.25},
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": 2, "beta_slow": 0.25},
    ),
    "llama3": (
        {"factor": 8, "original_context": ORIGINAL, "low_frequency_factor": 0.5,
         "high_frequency_factor": 2},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0},
    ),
}  # fmt: skip
every_scaling = pytest.mark.parametrize("kind", SCALINGS)


def rotary(kind: str, **changes) -> RotaryPosition:
    return RotaryPosition.model_validate(
        {"scaling": {"kind": kind, **SCALINGS[kind][0]}, **changes}
    )


def test_logit_factor_sharpens_the_whole_product(make_decoder, draw_tokens):
    sharp = {"kind": "yarn", "factor": 4, "original_context": 6, "logit_factor": 2.25}
    plain = sharp | {"logit_factor": None}
    changed = make_decoder(position={"kind": "rotary", "scaling": sharp})
    same = make_decoder(position={"kind": "rotary", "scaling": plain})
    with torch.no_grad():  # as much on the queries alone
        for block in same.blocks:
            block.attention.query.mul_(2.25)
    tokens = draw_tokens()
    torch.testing.assert_close(
        changed(tokens).logits, same(tokens).logits, rtol=0, atol=1e-12
    )  # fmt: skip


@every_scaling
def test_layouts_turn_the_same_pairs(kind):
    half, interleaved = (
        rotary(kind, layout=layout).build(32, CONTEXT) for layout in ("half", "interleaved")
    )
    x = torch.randn(1, 40, 2, 16, dtype=torch.float64)
    span = Span(0, 40, x.device)
    pairs = x.unflatten(-1, (8, 2)).transpose(-1, -2).flatten(-2)
    expected = interleaved.rotation(span)(x).unflatten(-1, (8, 2)).transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(half.rotation(span)(pairs), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["ntk", "dynamic"])
def test_a_single_pair_cannot_be_stretched(kind):
    with pytest.raises(ValueError, match="at least 4 turned channels"):
        rotary(kind).check(2)
    rotary(kind).check(4)
