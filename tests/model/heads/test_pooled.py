"""Pooled vectors by definition; padding moves none."""

from __future__ import annotations

import pytest
import torch

from coterie.model.context import ForwardContext
from coterie.model.heads import PooledSettings


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("dim", [None, 5])
@pytest.mark.parametrize("normalise", [True, False])
def test_pooled_vectors_by_definition(pool, dim, normalise):
    part = PooledSettings(pool=pool, dim=dim, normalise=normalise).build(6).double()
    if dim:
        torch.nn.init.normal_(part.projection)
    hidden = torch.randn(4, 5, 6, dtype=torch.float64)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]) > 0
    got = part(hidden, valid)
    for row in range(3):
        text = [hidden[row, t] for t in range(5) if valid[row, t]]
        expected = sum(text) / len(text) if pool == "mean" else text[-1]
        expected = part.projection @ expected if dim else expected
        expected = expected / expected.square().sum().sqrt() if normalise else expected
        torch.testing.assert_close(got[row], expected, rtol=0, atol=1e-12)
    assert torch.equal(got[3], torch.zeros_like(got[3])), "of nothing there is nothing to pool"
    torch.testing.assert_close(part(hidden)[0], got[0])


def test_padding_changes_no_text_s_vector(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(pooled={"dim": 6}), draw_tokens(2, 9)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[1, 5:] = False
    together = decoder(tokens, context=ForwardContext(valid=valid))
    alone = decoder(tokens[1:, :5]).embedding
    torch.testing.assert_close(together.embedding[1:], alone)
    torch.testing.assert_close(together.embedding.norm(dim=-1), torch.ones(2).double())
    with_loss = decoder(tokens, tokens, context=ForwardContext(valid=valid))
    torch.testing.assert_close(with_loss.embedding, together.embedding)
    last = decoder(tokens, context=ForwardContext(valid=valid), last=1)
    torch.testing.assert_close(last.embedding, together.embedding)


def test_rows_that_are_no_whole_text_have_no_vector(make_decoder, draw_tokens, plain_cache):
    decoder, tokens = make_decoder(pooled={}), draw_tokens()
    assert decoder(tokens, context=ForwardContext(cache=plain_cache(decoder))).embedding is None
    assert (
        decoder(tokens, context=ForwardContext(documents=torch.zeros_like(tokens))).embedding
        is None
    )
    assert make_decoder()(tokens).embedding is None
