"""Attention against the definition in float64, at every edge of windows, blocks and caches."""

from __future__ import annotations

import pytest
import torch

from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend


def oracle(query, keys, values, window):
    """Softmax over the positions that an explicit mask lets through, in float64."""
    query, keys, values = (each.double() for each in (query, keys, values))
    repeats = query.shape[1] // keys.shape[1]
    length, seen = query.shape[2], keys.shape[2]
    ends = range(seen - length, seen)
    mask = torch.tensor(
        [[j <= at and (window is None or j > at - window) for j in range(seen)] for at in ends]
    )
    result = torch.empty_like(query)
    for head in range(query.shape[1]):
        k, v = keys[:, head // repeats], values[:, head // repeats]
        scores = query[:, head] @ k.transpose(-1, -2) / query.shape[-1] ** 0.5
        result[:, head] = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    return result


def draw(length, seen, heads=4, kv_heads=2, channels=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(length * 1000 + seen)
    shapes = [(2, heads, length, channels), *[(2, kv_heads, seen, channels)] * 2]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("length", [1, 2, 63, 129, 200])
@pytest.mark.parametrize("earlier", [0, 1, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_attention_equals_the_definition(length, earlier, dtype):
    query, keys, values = draw(length, length + earlier, dtype=dtype)
    got = attend(query, keys, values, Mask())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(
        got.double(), oracle(query, keys, values, None), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("window", [1, 2, 5, 33, 70])
@pytest.mark.parametrize("earlier", ["none", "one", "window", "more"])
def test_windows_are_exact_at_their_edges(window, earlier):
    before = {"none": 0, "one": 1, "window": window, "more": 2 * window + 3}[earlier]
    lengths = {window - 1, window, window + 1, 3 * window, 3 * window + 1, 2 * window + 40, 300}
    for length in sorted(lengths - {0}):
        query, keys, values = draw(length, length + before)
        got = attend(query, keys, values, Mask(window))
        expected = oracle(query, keys, values, window)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12, msg=f"length {length}")


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_gradients_through_blocks_equal_those_of_the_definition(heads):
    inputs = [each.requires_grad_() for each in draw(150, 150, *heads)]
    gradient = torch.randn(inputs[0].shape, dtype=torch.float64)
    got = torch.autograd.grad(attend(*inputs, Mask(9)), inputs, gradient)
    expected = torch.autograd.grad(oracle(*inputs, 9), inputs, gradient)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [6, 200, 700])
def test_dropout_leaves_the_mean_and_needs_training(length, make_decoder, draw_tokens):
    query, keys, values = draw(length, length, 1, 1)
    window = 20 if length == 700 else None
    torch.manual_seed(0)
    mean = torch.stack(
        [attend(query, keys, values, Mask(window), dropout=0.5) for _ in range(200)]
    ).mean(0)
    exact = attend(query, keys, values, Mask(window))
    assert (mean - exact).abs().mean() < 0.15 * exact.abs().mean() + 0.05
    decoder = make_decoder(attention={"kind": "grouped", "heads": 2, "dropout": 0.5})
    tokens = draw_tokens()
    assert torch.equal(decoder(tokens).logits, decoder(tokens).logits)
    decoder.train()
    assert not torch.equal(decoder(tokens).logits, decoder(tokens).logits)


@pytest.mark.parametrize("window", [4, 5])
@pytest.mark.parametrize("length", [3, 4, 5, 12, 60])
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
    parts = [decoder(piece, cache=cache).logits for piece in tokens.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), logits, rtol=0, atol=1e-12)
