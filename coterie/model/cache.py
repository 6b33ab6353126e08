"""What the decoder asks of a cache: what each layer keeps of earlier positions.

Only the protocols stand here; `coterie.generate.cache` holds the implementations. One call of the
decoder with a cache reads `length` (the position of the first new token), hands each attention
layer its part, and ends with `extend(tokens)`, which makes the new tokens part of the past. What a
layer needs kept, its settings say (`keep`), so a cache is built for any mixture of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CacheSpec:
    """What one attention layer needs of the past.

    Attributes:
        window: the latest positions that a query sees, its own included; None: all before it.
        sinks: the first positions of the text, which every query sees besides its window.
        summaries: whether finished runs of positions are replaced by summaries of them, so that
            the layer's cache must be a `SummaryCache`.
    """

    window: int | None = None
    sinks: int = 0
    summaries: bool = False


@runtime_checkable
class AttentionCache(Protocol):
    """What one attention layer keeps: two tensors per position, by default keys and values."""

    def append(
        self, keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B J T E"]
    ) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], int]:
        """Add the keys and values of T new positions.

        Keys and values may differ in heads and channels: multi-head latent attention keeps its
        latent as keys and its rotary key as values.

        Returns:
            The keys and values of a run of positions that ends with the new ones and holds at
            least every earlier position that the new ones may attend to, and the absolute position
            of the run's first one. Where the layer keeps sinks and that position is not 0, the
            sinks come before the run; the run then begins after them. Valid until the next call.
        """
        ...


@runtime_checkable
class SummaryCache(AttentionCache, Protocol):
    """A cache whose oldest positions can be exchanged for fewer summaries of them."""

    def summarise(
        self, count: int, keys: Float[Tensor, "B K L C"], values: Float[Tensor, "B J L E"]
    ) -> None:
        """Forget the oldest `count` positions and keep L summaries in their place."""
        ...

    def summaries(self) -> tuple[Float[Tensor, "B K L C"], Float[Tensor, "B J L E"]] | None:
        """Return all summaries in their order; None while there are none."""
        ...


@runtime_checkable
class DecoderCache(Protocol):
    """The past of a batch of texts of equal length."""

    length: int  # positions read so far; the absolute position of the next token
    state: dict[str, Tensor]  # what parts of the decoder carry on from token to token, [B, …]

    @property
    def layers(self) -> Sequence[AttentionCache]:
        """The caches of the attention layers, from the bottom up."""
        ...

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read; `None` before the first call."""
        ...

    def extend(self, tokens: Int[Tensor, "B T"]) -> None:
        """Make T new tokens, whose keys every layer has appended, part of the past."""
        ...
