"""What a model's weights take in every format, told without making them."""

import torch

from coterie.foundation.settings import kind_of, members
from coterie.model import Decoder, DecoderSettings
from coterie.quantise.formats import Weights, WeightSettings
from coterie.quantise.model import quantise
from coterie.quantise.tensor import stored_bytes


def bytes_by_format(settings: DecoderSettings) -> dict[str, int]:
    """Return the bytes of a model's parameters as float32 and in each format of few bits."""
    found = {"float32": _bytes(settings, None)}
    for member in members(Weights):
        weights = member()
        assert isinstance(weights, WeightSettings)
        found[kind_of(member)] = _bytes(settings, weights)
    return found


def _bytes(settings: DecoderSettings, weights: WeightSettings | None) -> int:
    with torch.device("meta"):
        decoder = Decoder(settings)
    if weights is not None:
        quantise(decoder, weights)
    return stored_bytes(decoder.parameters())
