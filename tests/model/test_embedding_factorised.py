"""Factorised embeddings begin as large as full ones."""

from __future__ import annotations

import pytest
import torch


def test_factorised_tokens_begin_as_large_as_full_ones(make_settings):
    spreads = []
    for embedding in ({"kind": "full"}, {"kind": "factorised", "rank": 8}):
        settings = make_settings(embedding=embedding, vocab_size=3000, initial={"std": 0.05})
        decoder = settings.build(torch.Generator().manual_seed(0))
        spreads.append(float(decoder.embedding(torch.arange(3000)[None]).std().detach()))
    assert spreads[0] == pytest.approx(0.05, rel=0.05)
    assert spreads[1] == pytest.approx(0.05, rel=0.3)
