"""What every attention promises in a decoder: packed documents are read as if alone."""

from __future__ import annotations

import pytest
import torch

from coterie.model.context import ForwardContext

GROUPED = {"kind": "grouped", "heads": 4, "kv_heads": 2}
ATTENTIONS = {
    "all": GROUPED,
    "window": GROUPED | {"window": 5},
    "sinks": GROUPED | {"window": 5, "sinks": 2},
    "strided": GROUPED | {"sparse": {"kind": "strided", "stride": 3}},
    "dilated": GROUPED | {"window": 9, "sparse": {"kind": "dilated", "stride": 2}},
    "blocks": GROUPED | {"sparse": {"kind": "blocks", "size": 2, "chosen": 1}},
    "latent": {
        "kind": "mla", "heads": 2, "kv_rank": 8, "nope_dim": 8, "rope_dim": 4, "value_dim": 6,
        "window": 6, "sinks": 1,
    },
    "latent-vectors": {"kind": "latent_vectors", "heads": 2, "latents": 2, "chunk": 4},
}  # fmt: skip
PACKED = [(name, "rotary") for name in ATTENTIONS] + [("sinks", "learned"), ("blocks", "none")]


@pytest.mark.parametrize(("attention", "position"), PACKED)
def test_packed_documents_are_read_as_if_alone(attention, position, make_decoder):
    decoder = make_decoder(attention=ATTENTIONS[attention], position=position, context=40)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(23, (2, 31), generator=generator)
    lengths = [(12, 19), (1, 30)]
    documents = torch.tensor([[7] * a + [3] * b for a, b in lengths])
    packed = decoder(tokens, context=ForwardContext(documents=documents)).logits
    assert not torch.allclose(packed, decoder(tokens).logits)
    for row, (first, _) in enumerate(lengths):
        for part in (slice(0, first), slice(first, 31)):
            alone = decoder(tokens[row : row + 1, part]).logits
            torch.testing.assert_close(packed[row : row + 1, part], alone, rtol=0, atol=1e-12)
