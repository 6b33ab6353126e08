"""N-gram embeddings see exactly their longest order, within one document."""

from __future__ import annotations

import pytest
import torch

from coterie.model.context import ForwardContext
from coterie.model.embedding import NgramEmbedding


def test_ngram_embedding_reads_back_exactly_its_longest_order(make_decoder):
    settings = NgramEmbedding(orders=(2, 4), rows=4096, dim=8)
    part = settings.build(50, 16)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.arange(12)[None]
    before = part(tokens)
    changed = tokens.clone()
    changed[0, 5] = 40
    moved = (part(changed) - before).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [5, 6, 7, 8]
    later = part(tokens[:, 6:], tokens[:, 3:6])
    torch.testing.assert_close(later, before[:, 6:])


@pytest.mark.parametrize("combine", ["project", "add"])
def test_ngrams_do_not_reach_into_another_document(combine, make_decoder, draw_tokens):
    embedding = {"kind": "ngram", "orders": [2, 4], "rows": 31, "std": 0.3, "combine": combine}
    decoder, tokens = make_decoder(embedding=embedding), draw_tokens(length=9)
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2], [3, 1, 1, 1, 1, 1, 1, 3, 3]])
    packed = decoder(tokens, context=ForwardContext(documents=documents)).logits
    for row, ends in enumerate(([4, 6, 9], [1, 7, 9])):
        for start, end in zip([0, *ends], ends, strict=False):
            alone = decoder(tokens[row : row + 1, start:end]).logits[0]
            torch.testing.assert_close(packed[row, start:end], alone)
