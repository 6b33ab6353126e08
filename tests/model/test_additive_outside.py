"""An additive embedding from outside the package, in one file, plugs in by its import path."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from coterie.generate.cache import FullCacheSettings
from coterie.generate.session import cache_specs
from coterie.model import DecoderSettings
from coterie.model.context import ForwardContext

LINES = """
    import torch
    from torch import nn

    from coterie.model.additive import AdditivePart, AdditiveSettings
    from coterie.model.costs import lookup


    class Lines(AdditiveSettings):
        kind: str
        newline: int = 0
        most: int = 4

        def build(self, width):
            return LinesPart(self, width)

        def counts(self, width):
            return lookup("lines", self.most, width)


    class LinesPart(AdditivePart):
        roles = {"weight": "embedding"}

        def __init__(self, settings, width):
            super().__init__()
            self.settings = settings
            self.weight = nn.Parameter(torch.empty(settings.most, width))

        def vectors(self, tokens, span, state=None):
            before = tokens.new_zeros(len(tokens)) if state is None else state
            lines = before[:, None] + (tokens == self.settings.newline).cumsum(1)
            return self.weight[lines.clamp(max=self.settings.most - 1)], lines[:, -1]
"""


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    (tmp_path / "my_lab_lines.py").write_text(textwrap.dedent(LINES))
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_lab_lines:Lines"
    sys.modules.pop("my_lab_lines", None)


def test_a_decoder_counts_lines(my_lab, make_settings, make_decoder, draw_tokens):
    changes = {"additive": [{"kind": my_lab, "newline": 3}]}
    decoder, tokens = make_decoder(**changes), draw_tokens(2, 11)
    names = dict(decoder.named_parameters())
    assert names["additive.0.weight"].shape == (4, 16)
    expected = decoder(tokens).logits
    assert not torch.equal(expected, make_decoder()(tokens).logits)
    cache = FullCacheSettings().build(cache_specs(decoder))
    pieces = [
        decoder(piece, context=ForwardContext(cache=cache)).logits
        for piece in tokens.split((4, 1, 6), dim=1)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-12)
    again = DecoderSettings.model_validate(make_settings(**changes).model_dump(mode="json"))
    assert again == make_settings(**changes)
