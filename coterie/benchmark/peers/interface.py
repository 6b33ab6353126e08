"""What a benchmark asks of a peer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from jaxtyping import Int
from torch import Tensor

from coterie.benchmark.turns import Way
from coterie.model import Decoder
from coterie.tokenizer.interface import Tokenizer


class Peer(Protocol):
    """Another program that can decode with the same weights."""

    def ways(
        self, decoder: Decoder, tokenizer: Tokenizer, folder: Path, threads: int
    ) -> "Mapping[str, PeerWay]":
        """Return its ways of decoding, by the names they have in the table.

        Args:
            decoder: the model, in float32.
            folder: an empty one, for what it reads.

        Raises:
            UserError: it is not installed, or cannot hold this model.
        """
        ...


class PeerWay(Protocol):
    """One way of decoding greedily."""

    def __call__(self, prompts: Int[Tensor, "B T"], tokens: int) -> Way | None:
        """Return what decodes this many tokens after each prompt; None: not so many rows."""
        ...
