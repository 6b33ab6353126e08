"""Grouped attention: windows, sinks, caches, norms, biases and scales."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.model import CacheSpec
from coterie.model.attention import GroupedAttention
from coterie.model.context import ForwardContext
from coterie.model.position import Rotation

GROUPED = {"kind": "grouped", "heads": 4, "kv_heads": 2}


@pytest.mark.parametrize("window", [4, 5])
@pytest.mark.parametrize("length", [3, 4, 5, 12, 21])
def test_window_of_a_decoder_with_and_without_cache(
    window, length, make_decoder, plain_cache, draw_tokens
):
    decoder = make_decoder(layers=1, attention={"kind": "grouped", "heads": 2, "window": window})
    tokens = draw_tokens(1, length)
    logits = decoder(tokens).logits
    for at in range(length):
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + 1) % 23
        moved = (decoder(changed).logits - logits).abs().amax(-1)[0] > 1e-9
        # One layer: exactly the next w − 1 positions see the change, and no other.
        assert moved.nonzero().flatten().tolist() == list(range(at, min(at + window, length)))
    cache = plain_cache(decoder)
    parts = [
        decoder(piece, context=ForwardContext(cache=cache)).logits
        for piece in tokens.split(1, dim=1)
    ]
    torch.testing.assert_close(torch.cat(parts, 1), logits, rtol=0, atol=1e-12)


def test_a_sink_is_seen_from_everywhere(make_decoder, draw_tokens):
    decoder = make_decoder(layers=1, attention=GROUPED | {"window": 3, "sinks": 2})
    tokens = draw_tokens(1, 12)
    logits = decoder(tokens).logits
    for at, expected in [(0, range(12)), (1, range(1, 12)), (2, range(2, 5)), (8, range(8, 11))]:
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + 1) % 23
        moved = (decoder(changed).logits - logits).abs().amax(-1)[0] > 1e-9
        assert moved.nonzero().flatten().tolist() == list(expected)


def test_dropout_is_for_training_alone(make_decoder, draw_tokens):
    decoder = make_decoder(attention={"kind": "grouped", "heads": 2, "dropout": 0.5})
    tokens = draw_tokens()
    assert torch.equal(decoder(tokens).logits, decoder(tokens).logits)
    decoder.train()
    assert not torch.equal(decoder(tokens).logits, decoder(tokens).logits)


def built(**changes):
    settings = GroupedAttention(heads=4, kv_heads=2, **changes)
    part = settings.build(16).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return settings, part, torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)


def test_biases_of_queries_keys_and_values_alone():
    _, part, _ = built(bias="qkv")
    assert part.output_bias is None
    assert part.query_bias is not None
    assert GroupedAttention(bias="qkv").counts(16, 8).parameters == 4 * 16 * 16 + 3 * 16
    assert GroupedAttention(bias=True).counts(16, 8).parameters == 4 * 16 * 16 + 4 * 16
    with pytest.raises(ValueError, match="qkv"):
        GroupedAttention.model_validate({"bias": "output"})


@pytest.mark.parametrize("over", ["head", "all"])
def test_norms_of_queries_and_keys_by_head_or_over_all(over):
    settings, part, x = built(query_key_norm=True, query_key_norm_over=over)

    def normal(each, weight):
        vectors = each if over == "all" else each.unflatten(-1, (-1, 4))
        root = (vectors.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return (vectors / root * weight).reshape(*x.shape[:2], -1, 4).transpose(1, 2)

    query = normal(x @ part.query.T, part.query_norm.weight)
    keys = normal(x @ part.key.T, part.key_norm.weight).repeat_interleave(2, 1)
    values = (x @ part.value.T).unflatten(-1, (-1, 4)).transpose(1, 2).repeat_interleave(2, 1)
    scores = (query @ keys.mT / 2).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf)
    expected = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2) @ part.output.T
    torch.testing.assert_close(part(x), expected, rtol=0, atol=1e-12)
    norms = settings.counts(16, 8).parameters - (16 * 16 * 2 + 8 * 16 * 2)
    assert norms == (16 + 8 if over == "all" else 4 + 4)


def test_the_logits_are_multiplied_by_the_rotations_scale():
    _, part, x = built()
    plain = part(x, ForwardContext(rotation=Rotation(lambda each: each)))
    scaled = part(x, ForwardContext(rotation=Rotation(lambda each: each, 2.5)))
    assert not torch.allclose(plain, scaled)
    with torch.no_grad():
        part.query.mul_(2.5)
    torch.testing.assert_close(part(x), scaled, rtol=0, atol=1e-12)


def test_counts_the_pairs_that_the_mask_lets_through():
    for changes in ({}, {"window": 7}, {"window": 7, "sinks": 3}, {"sparse": "strided"}):
        settings = GroupedAttention.model_validate({"heads": 2} | changes)
        products = next(p for _, p in settings.counts(16, 40).walk() if p.name == "products")
        at = torch.arange(40)
        pairs = int(settings.mask().visible(at, at).sum())
        assert products.flops == pytest.approx(4 * 16 * pairs / 40)
    assert GroupedAttention(window=7, sinks=3).cache_spec() == CacheSpec(7, 3)
    assert GroupedAttention.model_validate({"sparse": "strided"}).cache_spec() == CacheSpec()


def test_runs_in_half_precision_beside_a_cache_of_it(make_decoder, plain_cache, draw_tokens):
    decoder = make_decoder(torch.bfloat16, attention=GROUPED | {"window": 5, "sinks": 1})
    tokens, cache = draw_tokens(1, 11), plain_cache(decoder)
    with torch.inference_mode():
        parts = [
            decoder(piece, context=ForwardContext(cache=cache)).logits
            for piece in tokens.split((4, 1, 6), dim=1)
        ]
        whole = decoder(tokens).logits
    cosine = F.cosine_similarity(torch.cat(parts, 1).float(), whole.float(), dim=-1)
    assert cosine.min() > 0.99
