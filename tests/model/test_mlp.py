"""Deep, plain, hybrid and null MLPs against their formulas."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from coterie.model.mlp import DeepMLP, HybridMLP, NullMLP, PlainMLP, WideMLP

WIDTH = 6


def fill(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return module.double()


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64)


def affine(x, body, name):
    return x @ getattr(body, name).T + getattr(body, f"{name}_bias")


def test_deep_is_two_hidden_layers_in_sequence():
    body = fill(DeepMLP(width=5, bias=True).build(WIDTH))
    x = draw(3)
    hidden = F.gelu(affine(F.gelu(affine(x, body, "up")), body, "middle"))
    torch.testing.assert_close(body(x), affine(hidden, body, "down"), rtol=0, atol=1e-12)


def test_wide_is_one_hidden_layer_with_the_activation_asked_for():
    x = draw(3)
    for name, function in {
        "gelu": F.gelu, "relu": torch.relu, "silu": F.silu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
        "relu_squared": lambda t: torch.relu(t) ** 2,
    }.items():  # fmt: skip
        body = fill(PlainMLP(width=9, bias=True, activation=name).build(WIDTH))
        expected = affine(function(affine(x, body, "up")), body, "down")
        torch.testing.assert_close(body(x), expected, rtol=0, atol=1e-12)


def test_hybrid_adds_a_deep_and_a_wide_path():
    body = fill(HybridMLP(width=10, deep_width=3, bias=True, activation="silu").build(WIDTH))
    x = draw(3)
    hidden = F.silu(affine(F.silu(affine(x, body, "deep_up")), body, "deep_middle"))
    wide = affine(F.silu(affine(x, body, "wide_up")), body, "wide_down")
    expected = affine(hidden, body, "deep_down") + wide
    torch.testing.assert_close(body(x), expected, rtol=0, atol=1e-12)


def test_deep_and_wide_are_of_one_size_by_default():
    sizes = {kind.counts("", 32).parameters for kind in (DeepMLP(), WideMLP(), PlainMLP())}
    assert sizes == {8 * 32 * 32}
    assert HybridMLP().counts("", 32).parameters == 7 * 32 * 32


def test_null_answers_zero_or_its_input_and_weighs_nothing():
    x = draw(3)
    assert torch.equal(NullMLP().build(WIDTH)(x), torch.zeros_like(x))
    assert torch.equal(NullMLP(output="copy").build(WIDTH)(x), x)
    assert NullMLP().counts("", WIDTH).parameters == 0
