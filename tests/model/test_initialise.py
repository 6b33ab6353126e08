"""Initial values follow the settings and one generator alone."""

from __future__ import annotations

import pytest
import torch

from coterie.model import InitialSettings


def test_initial_values_follow_the_settings(make_settings):
    def spread(name, **initial):
        settings = make_settings(
            width=64, layers=8, vocab_size=500, initial=InitialSettings(**initial)
        )
        decoder = settings.build(torch.Generator().manual_seed(3))
        return dict(decoder.named_parameters())[name].std().item()

    query, output = "blocks.1.attention.query", "blocks.1.attention.output"
    assert spread(query, std=0.1) == pytest.approx(0.1, rel=0.05)
    assert spread(query, std=None) == pytest.approx(1 / 8, rel=0.05)
    assert spread(output, std=0.1) == pytest.approx(0.1 / 4, rel=0.05)
    assert spread(output, std=0.1, outputs="plain") == pytest.approx(0.1, rel=0.05)
    assert spread(output, outputs="zero") == 0
    assert spread("head.weight", head="zero") == 0
    assert spread("embedding.weight", std=None, embedding_std=0.7) == pytest.approx(0.7, rel=0.05)


def test_the_same_generator_gives_the_same_decoder_whatever_happened_before(make_settings):
    settings = make_settings(embedding={"kind": "ngram", "rows": 7, "dim": 4})
    torch.manual_seed(1)
    one = settings.build(torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(2)
    two = settings.build(torch.Generator().manual_seed(5)).state_dict()
    three = settings.build(torch.Generator().manual_seed(6)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embedding.table"], three["embedding.table"])
