"""Quantised matrices, packed ones and embeddings included, are read as they lie."""

from __future__ import annotations

import pytest
import torch

from coterie.generate.cache import FullCacheSettings
from coterie.generate.passes.eager import EagerPass
from coterie.generate.passes.interface import Call
from coterie.generate.passes.native import NativePass
from coterie.generate.session import cache_specs
from coterie.model import DecoderSettings
from coterie.quantise import Int4Weights, Int8Weights, quantise

VOCAB = 23
MODELS = {
    "experts": {
        "feedforward": {
            "kind": "moe", "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 96}}],
            "experts_per_token": 2, "shared_experts": 1,
        },
    },
    "tied, biases": {
        "head": {"tied": True}, "attention": {"kind": "grouped", "heads": 2, "bias": True},
    },
    "learned positions": {"position": "learned"},
    "n-grams": {"embedding": {"kind": "ngram", "rows": 64}},
    "latents": {
        "attention": {"kind": "mla", "heads": 2, "kv_rank": 40, "nope_dim": 8, "rope_dim": 4},
    },
    "n-grams added": {"embedding": {"kind": "ngram", "rows": 64, "combine": "add"}},
}  # fmt: skip


def build(width, **changes):
    torch.manual_seed(0)
    values = {"layers": 2, "width": width, "context": 16, "vocab_size": VOCAB, **changes}
    decoder = DecoderSettings.model_validate(values).build().eval()
    with torch.no_grad():  # what begins as 0 would hide mistakes
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


@pytest.mark.parametrize("width", [64, 40])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weights", [Int8Weights(), Int4Weights()], ids=lambda each: each.kind)
def test_quantised_weights_give_the_logits_of_the_decoder(name, weights, width):
    decoder = build(width, **MODELS[name])
    quantise(decoder, weights)
    native, eager = NativePass(decoder), EagerPass(decoder)
    caches = [FullCacheSettings(room=2).build(cache_specs(decoder)) for _ in range(2)]
    prompts = torch.randint(VOCAB, (2, 5))
    with torch.inference_mode():
        for cache in caches:
            eager.read(Call(prompts, cache))
        for _ in range(3):
            tokens = torch.randint(VOCAB, (2, 1))
            calls = [Call(tokens, cache, last=1) for cache in caches]
            assert native.refuses(calls[0]) is None
            mine, theirs = native.read(calls[0]).clone(), eager.read(calls[1])
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
