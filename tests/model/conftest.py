"""Small decoders and a cache that simply keeps everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from coterie.model import Decoder, DecoderSettings
from coterie.model.geometry import KeyLayout

VOCAB = 23


class PlainLayerCache:
    """Keys and values of all positions, joined anew at each step."""

    def __init__(self) -> None:
        self.keys = self.values = None

    def append(self, keys, values, rows=None):
        assert rows is None
        if self.keys is not None:
            keys, values = torch.cat((self.keys, keys), 2), torch.cat((self.values, values), 2)
        self.keys, self.values = keys, values
        return keys, values, KeyLayout()

    @property
    def elements(self) -> int:
        return self.keys.numel() + self.values.numel()


class PlainSummaryCache(PlainLayerCache):
    """The same with the oldest positions exchanged for summaries of them."""

    def __init__(self) -> None:
        super().__init__()
        self.held = PlainLayerCache()
        self.forgotten = 0

    def append(self, keys, values, rows=None):
        assert rows is None
        return *super().append(keys, values)[:2], KeyLayout(start_position=self.forgotten)

    def summarise(self, count, keys, values):
        self.keys, self.values = self.keys[:, :, count:], self.values[:, :, count:]
        self.held.append(keys, values)
        self.forgotten += count

    def summaries(self):
        return None if self.held.keys is None else (self.held.keys, self.held.values)

    def row(self, row, rows):
        raise NotImplementedError

    clear = row

    @property
    def elements(self) -> int:
        return super().elements + (0 if self.held.keys is None else self.held.elements)


class PlainCache:
    """The past of texts read by a decoder."""

    def __init__(self, decoder: Decoder) -> None:
        specs = [plan.attention.cache_spec() for plan in decoder.settings.plans()]
        self.layers = [
            PlainSummaryCache() if spec.summaries else PlainLayerCache() for spec in specs
        ]
        self.length = 0
        self.tokens = None
        self.state = {}

    def recent_tokens(self, count: int):
        return None if self.tokens is None else self.tokens[:, -count:]

    def place(self, tokens, lengths, documents):
        assert lengths is None
        assert documents is None

    def extend(self, tokens, rows=None):
        self.length += tokens.shape[1]
        self.tokens = tokens if self.tokens is None else torch.cat((self.tokens, tokens), 1)

    @property
    def elements(self) -> int:
        return sum(layer.elements for layer in self.layers)


@pytest.fixture
def plain_cache() -> type[PlainCache]:
    return PlainCache


@pytest.fixture
def make_settings() -> Callable[..., DecoderSettings]:
    """Return a maker of settings: two layers of width 16, changed as asked."""

    def make(**changes: Any) -> DecoderSettings:
        base = {
            "layers": 2,
            "width": 16,
            "context": 12,
            "vocab_size": VOCAB,
            "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 12}},
            "initial": {"std": 0.2, "outputs": "plain"},
        }
        return DecoderSettings.model_validate(base | changes)

    return make


@pytest.fixture
def make_decoder(make_settings) -> Callable[..., Decoder]:
    """Return a maker of float64 decoders in evaluation mode with fixed weights."""

    def make(dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> Decoder:
        settings = make_settings(**changes)
        generator = torch.Generator().manual_seed(seed)
        decoder = settings.build(generator)
        with torch.no_grad():  # biases and norms must not hide behind zeros and ones
            for parameter in decoder.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return decoder.to(dtype).eval()

    return make


@pytest.fixture
def draw_tokens() -> Callable[..., torch.Tensor]:
    """Return a maker of random tokens [B, T]."""

    def draw(batch: int = 2, length: int = 9, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(VOCAB, (batch, length), generator=generator)

    return draw
