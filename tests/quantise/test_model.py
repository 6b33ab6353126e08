"""Whole models: nothing is skipped, experts that no token chose are not read, logits stay near."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.foundation.settings import members
from coterie.model import Decoder, DecoderSettings
from coterie.model.experts.layer import MixtureOfExpertsPart
from coterie.quantise import (
    Int4Weights,
    Int8Tensor,
    Int8Weights,
    QuantisedTensor,
    Weights,
    bytes_by_format,
    dequantise,
    quantise,
    stored_bytes,
    weights_of,
)

MOE = {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2, "shared_experts": 1}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 32, "nope_dim": 16, "rope_dim": 16}
NGRAM = {"kind": "ngram", "orders": [2], "rows": 64}
MODELS = {
    "experts": {"feedforward": MOE},
    "tied": {"head": {"tied": True}},
    "mla": {"attention": MLA, "embedding": {"kind": "factorised", "rank": 32}},
    "ngram": {
        "embedding": NGRAM,
        "attention": {"kind": "latent_vectors", "heads": 2, "chunk": 8, "latents": 2},
    },
}
TOKENS = torch.arange(12).view(1, 12) % 7


def build(name: str) -> Decoder:
    torch.manual_seed(0)
    sizes = {"layers": 2, "width": 64, "context": 16, "vocab_size": 40}
    return DecoderSettings.model_validate({**sizes, **MODELS[name]}).build().eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("member", members(Weights), ids=lambda member: member.__name__)
def test_logits_stay_near_and_every_matrix_is_quantised(name, member):
    decoder = build(name)
    with torch.inference_mode():
        before = decoder(TOKENS).logits
        quantise(decoder, member())
        after, alone = decoder(TOKENS).logits, decoder(TOKENS[:, :1]).logits
    limit = {"int8": 0.06, "int4": 0.5}[member().kind]
    assert (after - before).abs().max() < limit * before.std()
    assert torch.allclose(after[:, :1], alone, atol=1e-5)
    left = {n: p for n, p in decoder.named_parameters() if not isinstance(p, QuantisedTensor)}
    assert all("norm" in name or "router" in name or "bias" in name for name in left), list(left)
    assert stored_bytes(decoder.parameters()) == bytes_by_format(decoder.settings)[member().kind]
    dequantise(decoder)
    assert weights_of(decoder) is None
    with torch.inference_mode():
        assert torch.allclose(decoder(TOKENS).logits, after, atol=1e-5)


def test_bytes_of_packed_experts():
    decoder = build("experts")
    packs = [each for each in decoder.modules() if isinstance(each, MixtureOfExpertsPart)]
    weights = [each for pack in packs for each in pack.experts.parameters()]
    number = sum(each.numel() for each in weights)
    quantise(decoder, Int4Weights())
    weights = [each for pack in packs for each in pack.experts.parameters()]
    assert all(each.ndim == 3 for each in weights)
    # Inputs are padded to whole groups: 170 hidden channels of SwiGLU to 192.
    sizes = [each.shape[:-1].numel() * -(-each.shape[-1] // 32) * 32 for each in weights]
    assert sum(sizes) < 1.1 * number
    assert stored_bytes(weights) == 0.625 * sum(sizes)


def test_experts_that_no_token_chose_are_not_read(monkeypatch):
    decoder = build("experts")
    quantise(decoder, Int8Weights())
    read: list[tuple[int, ...]] = []
    whole = Int8Tensor.dequantise
    monkeypatch.setattr(
        Int8Tensor, "dequantise", lambda self: read.append(tuple(self.shape)) or whole(self)
    )
    packs = {p.shape for p in decoder.parameters() if p.ndim == 3}
    each = {shape[1:] for shape in packs}
    with torch.inference_mode():
        for tokens in (TOKENS, TOKENS[:, :1]):
            read.clear()
            stats = decoder(tokens).router_stats
            used = sum(int((layer.load > 0).sum()) for layer in stats)
            assert not packs & set(read)
            # Gate, up and down of each expert that was used, and of the shared one of both layers.
            assert sum(shape in each for shape in read) == 3 * (used + 2)


def test_a_tied_head_stays_one_tensor():
    decoder = build("tied")
    quantise(decoder, Int4Weights(embedding="int8", head="int4"))
    assert decoder.head.weight is None
    assert decoder.embedding.weight.kind == "int8"


def test_is_quantised_once():
    decoder = build("tied")
    quantise(decoder, Int8Weights())
    with pytest.raises(UserError, match="int8 already") as caught:
        quantise(decoder, Int4Weights())
    assert "origin.json" in caught.value.hint


def test_refuses_what_is_not_finite():
    decoder = build("tied")
    with torch.no_grad():
        decoder.blocks[1].attention.query[0, 0] = torch.inf
    with pytest.raises(UserError, match=r"blocks\.1\.attention\.query .* not finite"):
        quantise(decoder, Int8Weights())
    assert weights_of(decoder) is None
