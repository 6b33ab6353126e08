"""Beside transformers: it decodes with our weights, and so writes what we write."""

from __future__ import annotations

import pytest
import torch

from coterie.benchmark import PEERS
from coterie.benchmark.decode import our_side
from coterie.generate import SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer


@pytest.mark.parametrize("feedforward", ["dense", "moe"])
def test_it_writes_the_same_tokens(feedforward, tmp_path):
    settings: dict[str, object] = {"layers": 1, "width": 32, "context": 32, "vocab_size": 272}
    if feedforward == "moe":
        settings["feedforward"] = {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2}
    decoder = (
        DecoderSettings.model_validate(settings).build(torch.Generator().manual_seed(1)).eval()
    )
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    tokenizer = parse_tokenizer("bytes").build()
    prompts = torch.randint(0, 250, (2, 5), generator=torch.Generator().manual_seed(3))
    ours = our_side(decoder, tokenizer, SamplingSettings()).way(prompts, 6)
    assert ours is not None
    written = ours()
    ways = PEERS["transformers"].ways(decoder, tokenizer, tmp_path, 1)
    assert len(ways) == (3 if feedforward == "moe" else 1)
    for way in ways.values():
        decode = way(prompts, 6)
        assert decode is not None
        theirs = decode()
        assert theirs.tokens == written.tokens
        assert theirs.steps == 5
