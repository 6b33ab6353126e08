"""The measured kernel: one choice for each class of sizes, and no trace of the trials."""

from __future__ import annotations

import torch

from coterie.model.experts import MixtureOfExperts, measurements
from coterie.model.experts.kernel import measured

WIDTH = 8


PACKS = [
    {"mlp": {"kind": "gated", "width": 12, "bias": True}, "count": 3},
    {"mlp": "null", "count": 1},
    {"mlp": {"kind": "deep", "width": 4}, "count": 2},
]


def build(compute, packs=PACKS):
    settings = MixtureOfExperts.model_validate(
        {"experts": packs, "experts_per_token": 2, "kernel": compute}
    )
    part = settings.build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return part


def test_measuring_remembers_one_choice_per_class_of_sizes(monkeypatch):
    monkeypatch.setattr(measured, "_measured", {})
    calls = []
    original = measured._seconds
    monkeypatch.setattr(measured, "_seconds", lambda *inputs: calls.append(1) or original(*inputs))
    part, x = build("measured"), torch.randn(2, 20, WIDTH, dtype=torch.float64)
    part(x)
    assert len(calls) == 3, "80 pairs: loop, grouped and padded are tried, gather is not"
    part(x[:, :17])
    assert len(calls) == 3, "68 pairs are of the same class"
    with torch.no_grad():
        part(x[:, :1])
    assert len(calls) == 7, "few pairs and no backward pass: another class, gather included"
    found = measurements()
    assert [(sizes.pairs, sizes.backward) for sizes in found] == [(128, True), (4, False)]
    for times in found.values():
        assert list(times.values()) == sorted(times.values())
        assert all(seconds > 0 for seconds in times.values())


def test_measuring_leaves_no_trace_in_gradients_or_recomputation(monkeypatch, make_decoder,
                                                                 draw_tokens):  # fmt: skip
    changes = {"feedforward": {"kind": "moe", "experts": PACKS, "experts_per_token": 2}}
    tokens = draw_tokens(2, 12)

    def gradients(compute):
        decoder = make_decoder(**changes | {"feedforward": changes["feedforward"] | {
            "kernel": compute}}).train()  # fmt: skip
        decoder.activation_checkpointing = True
        decoder(tokens, tokens).losses.sum().backward()
        return [p.grad for p in decoder.parameters() if p.grad is not None]

    monkeypatch.setattr(measured, "_measured", {})
    for one, other in zip(gradients("measured"), gradients("loop"), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
