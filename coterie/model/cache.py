"""What the decoder asks of a cache: what each layer keeps of earlier positions.

Only the protocols stand here; `coterie.generate.cache` holds the implementations. One call of the
decoder with a cache asks where the new tokens stand (`length` and `place`), hands each attention
layer its part, and ends with `extend(tokens)`, which makes the new tokens part of the past. What a
layer needs kept, its settings say (`cache_spec`), so a cache is built for any mixture of layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.geometry import KeyLayout, UnevenRows

NewKeys = Float[Tensor, "B K T C"]
NewValues = Float[Tensor, "B J T E"]
Seen = tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], KeyLayout]
"""What a layer hands to its cache, and what it is handed back: see `AttentionCache.append`."""
Turn = Callable[[Float[Tensor, "B T H C"], Int[Tensor, "B T"]], Float[Tensor, "B T H C"]]


@dataclass(frozen=True)
class CacheSpec:
    """What one attention layer needs of the past.

    Attributes:
        window: the latest positions that a query sees, its own included; None: all before it.
        sinks: the first positions of the text, which every query sees besides its window.
        summaries: how many replace each finished run of positions, so that the layer's cache must
            be a `SummaryCache`; 0: positions are kept.
        run: positions of such a run; 0 without summaries.
        rotated: which of the two tensors a layer hands over is turned by its position.
        turn: turns such a tensor [B, T, H, C] by so many further positions [B, T]; None where
            nothing is turned.
    """

    window: int | None = None
    sinks: int = 0
    summaries: int = 0
    run: int = 0
    rotated: Literal["keys", "values"] = "keys"
    turn: Turn | None = None


@runtime_checkable
class AttentionCache(Protocol):
    """What one attention layer keeps: two tensors per position, by default keys and values."""

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        """Add the keys and values of T new positions.

        Keys and values may differ in heads and channels: multi-head latent attention keeps its
        latent as keys and its rotary key as values.

        Args:
            rows: where the new positions stand, once rows have been unequally long; None: every
                row has read as much as the others.

        Returns:
            Keys and values that end with the new ones and hold at least every earlier position
            that these may attend to, and where they stand: the text's first positions (the sinks)
            and a run that ends with the new ones, or the position of each where rows differ. What
            is returned is finite wherever it stands, and valid until the next call.
        """
        ...


@runtime_checkable
class ObservingCache(AttentionCache, Protocol):
    """A cache that chooses what to keep by the attention it draws."""

    def observe(self, received: Float[Tensor, "B S"]) -> None:
        """Take down how much attention each slot of the latest call drew from its queries."""
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

    def row(self, row: int, rows: int) -> "SummaryCache":
        """Return the cache of one row of `rows`; from the first such call on each has its own."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


@runtime_checkable
class DecoderCache(Protocol):
    """The past of a batch of texts."""

    length: int  # positions that the longest row has read
    state: dict[str, Tensor]  # what parts of the decoder hand on from token to token, [B, …]

    @property
    def layers(self) -> Sequence[AttentionCache]:
        """The caches of the attention layers, from the bottom up."""
        ...

    def place(
        self,
        tokens: Int[Tensor, "B T"],
        lengths: tuple[int, ...] | None,
        documents: Int[Tensor, "B T"] | None,
    ) -> UnevenRows | None:
        """Return where new tokens will stand; None while all rows have read equally much.

        Args:
            tokens: T of each row.
            lengths: how many of them are real; None: all.
            documents: the document of each, where rows hold several.
        """
        ...

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read, −1 where a row has read fewer.

        None before the first call.
        """
        ...

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None = None) -> None:
        """Make T new tokens, whose keys every layer has appended, part of the past."""
        ...
