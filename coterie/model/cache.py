"""What the decoder asks of a cache: the keys and values of earlier positions, layer by layer.

Only the protocol stands here; `coterie.generate.cache` holds the implementations. One call of the
decoder with a cache reads `length` (the position of the first new token), hands each attention
layer its part, and ends with `extend(tokens)`, which makes the new tokens part of the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class AttentionCache(Protocol):
    """The earlier keys and values of one attention layer."""

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B K T C"]
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B K S C"], int]:
        """Add the keys (already rotated) and values of T new positions.

        Returns:
            The keys and values of a run of S positions that ends with the new ones and holds at
            least every earlier position that the new ones may attend to, and the absolute position
            of its first one. They are valid until the next call.
        """
        ...


@runtime_checkable
class DecoderCache(Protocol):
    """The past of a batch of texts of equal length."""

    layers: Sequence[AttentionCache]
    length: int  # positions read so far; the absolute position of the next token

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read; `None` before the first call."""
        ...

    def extend(self, tokens: Int[Tensor, "B T"]) -> None:
        """Make T new tokens, whose keys every layer has appended, part of the past."""
        ...
