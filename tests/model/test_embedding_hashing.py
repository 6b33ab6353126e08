"""Rows of n-grams: the same on every machine, evenly spread."""

from __future__ import annotations

import torch

from coterie.model.embedding import ngram_rows


def test_ngrams_hash_to_the_same_rows_on_every_machine():
    tokens = torch.tensor([[7, 1, 2, 3, 1, 2]])
    rows = ngram_rows(tokens, (2, 3), 1000)
    assert rows.shape == (1, 4, 2)
    assert torch.equal(rows[0, 0, 0], rows[0, 3, 0]), "the same bigram, the same row"
    assert rows[0, 0, 1] != rows[0, 3, 1], "but not the same trigram"
    assert (rows[..., 1] >= 1000).all()
    assert (rows[..., 1] < 2000).all()
    # Fixed for ever: trained tables depend on these values.
    prime, base = 2**31 - 1, 1_000_003
    mixer = pow(1_540_483_477, 2, prime)
    assert int(rows[0, 0, 0]) == ((2 + 1) + (1 + 1) * base) % prime * mixer % prime % 1000


def test_ngrams_spread_evenly_over_rows():
    tokens = torch.randint(65, (1, 40_000), generator=torch.Generator().manual_seed(0))
    rows = ngram_rows(tokens, (3,), 256).flatten()
    load = torch.bincount(rows, minlength=256).float()
    assert load.max() / load.mean() < 1.5
    assert load.min() / load.mean() > 0.5
