"""Ourselves with weights of few bits."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from coterie.benchmark.decode import our_side
from coterie.benchmark.peers.interface import PeerWay
from coterie.benchmark.turns import Way
from coterie.generate import SamplingSettings
from coterie.model import Decoder
from coterie.quantise import WeightSettings, quantise
from coterie.tokenizer.interface import Tokenizer


class Quantised:
    """Our engine, reading the weights in another format."""

    def __init__(self, name: str, weights: WeightSettings) -> None:
        self._name, self._weights = name, weights

    def ways(
        self, decoder: Decoder, tokenizer: Tokenizer, folder: Path, threads: int
    ) -> Mapping[str, PeerWay]:
        """Return one way, with a copy of the model."""
        other = deepcopy(decoder)
        quantise(other, self._weights)
        side = our_side(other, tokenizer, SamplingSettings())

        def way(prompts: Int[Tensor, "B T"], tokens: int) -> Way | None:
            return side.way(prompts, tokens)

        return {f"{side.name}, {self._name}": way}
