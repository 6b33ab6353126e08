"""The paged cache: every position, in blocks that texts share.

Keys and values lie in blocks of a pool (Kwon et al. 2023, PagedAttention, arXiv:2309.06180).
Samples of one prompt hold the same blocks, and copy the last one when they write to it; full blocks
stay after their text has ended, until their room is needed, and a text that begins with the same
tokens goes on from them: a system prompt, and what was said so far, is computed once.

Where rows do not lie in one piece, attention is handed a copy, made for each layer and call: what
this cache saves is the prompts' time and memory, not the tokens'.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.settings import Settings
from coterie.generate.cache.pool import BlockPool
from coterie.generate.cache.prefix import PrefixStats
from coterie.generate.cache.stack import CacheStack, LayerCache, Placement
from coterie.generate.cache.summaries import SummaryLayerCache
from coterie.generate.cache.table import BlockTable
from coterie.model import CacheSpec
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import KeyLayout, UnevenRows


class PagedCacheSettings(Settings):
    """Keep every position, in blocks that samples and successive texts share: exact.

    Layers with a window of their own keep everything too, so that texts can go on from any block.
    A model with layers that replace positions by summaries shares nothing between texts.
    """

    kind: Literal["paged"] = "paged"
    block: int = Field(default=16, ge=1, le=4096, description="positions of a block")
    keep: int = Field(
        default=1 << 16, ge=0, description="tokens of ended texts kept for others to go on from"
    )
    salt: str = Field(default="", description="texts share blocks only with those of equal salt")

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> "PagedStack":
        """Make an empty cache; alone it shares blocks among its own rows."""
        return PagedStack(self, specs, rollback)


class PrefixStore:
    """The blocks of all texts of one model, as long as an engine lives.

    Blocks of a model whose weights have changed since are forgotten. Changes through `.data` go
    unnoticed: call `clear` after them.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder = decoder
        self._weights: tuple[tuple[int, int], ...] = ()
        self._pools: dict[PagedCacheSettings, BlockPool] = {}
        self._stats = PrefixStats()

    def pool(self, settings: PagedCacheSettings) -> BlockPool:
        """Return the blocks of all texts with these settings."""
        weights = tuple(
            (id(each), 0 if each.is_inference() else each._version)
            for each in self._decoder.state_dict(keep_vars=True).values()
        )
        if weights != self._weights:
            self.clear()
            self._weights = weights
        if settings not in self._pools:
            root = repr((settings.kind, settings.block, settings.salt, weights)).encode()
            self._pools[settings] = BlockPool(settings.block, settings.keep // settings.block, root)
        return self._pools[settings]

    def count(self, asked: int, found: int) -> None:
        """Count tokens of prompts, and those among them that were known."""
        self._stats.asked += asked
        self._stats.found += found

    def clear(self) -> None:
        """Forget all blocks; those of running texts stay theirs."""
        self._pools.clear()

    @property
    def stats(self) -> PrefixStats:
        """How much of the prompts was known, and what is held."""
        pools = self._pools.values()
        return PrefixStats(
            self._stats.asked,
            self._stats.found,
            sum(pool.nbytes for pool in pools),
            sum(pool.idle * pool.size for pool in pools),
        )


class PagedStack(CacheStack):
    """The past of a batch of texts, in blocks.

    Args:
        rollback: how many of the latest tokens may be taken back: any number.
    """

    def __init__(
        self, settings: PagedCacheSettings, specs: Sequence[CacheSpec], rollback: int = 0
    ) -> None:
        super().__init__(
            [self._layer(number, spec, rollback) for number, spec in enumerate(specs)], rollback
        )
        self._settings = settings
        self._shares = not any(spec.summaries for spec in specs)
        self._table = BlockTable(BlockPool(settings.block, keep=0))
        self._bind()

    def _layer(self, number: int, spec: CacheSpec, rollback: int) -> LayerCache:
        if spec.summaries:
            return SummaryLayerCache(spec.run, rollback, spec.summaries)
        return PagedLayerCache(number)

    def _bind(self) -> None:
        for layer in self.layers:
            if isinstance(layer, PagedLayerCache):
                layer.table = self._table

    def adopt(self, texts: Sequence[Sequence[int]], store: PrefixStore) -> int:
        """Take over what the store knows of texts that are about to be read.

        Returns:
            How many leading tokens are already there, of each text; the others must be read.
        """
        assert not self.rows
        if not self._shares:
            return 0
        self._table = BlockTable(store.pool(self._settings))
        self._bind()
        known, state = self._table.adopt(texts)
        store.count(sum(map(len, texts)), known * len(texts))
        if known:
            device = self._table.pool.device
            super().extend(torch.tensor([text[:known] for text in texts], device=device))
            self.state = dict(state)
        return known

    def place(
        self,
        tokens: Int[Tensor, "B T"],
        lengths: tuple[int, ...] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
    ) -> UnevenRows | None:
        """Return where new tokens will stand, and have blocks for them."""
        rows = super().place(tokens, lengths, documents)
        self._table.reserve(tokens, rows)
        return rows

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None = None) -> None:
        super().extend(tokens, rows)
        shares = self._shares and self._documents is None
        real = None if rows is None else rows.lengths
        self._table.commit(tokens, real, self.state if shares else None)

    def reserve(self, extra: int) -> None:
        self._table.take((extra,) * self.rows)

    def advance(self, tokens: Int[Tensor, "B T"], real: tuple[int, ...] | None = None) -> None:
        """Make T new tokens, whose keys were written into the blocks, part of the past."""
        super().advance(tokens, real)
        # Of a row that has ended the state has gone on without it.
        knows = self._shares and not (self.state and real and len(set(real)) > 1)
        self._table.commit(tokens, real, self.state if knows else None)
        self._table.truncate(self.lengths)  # blocks that were not needed go back

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only these rows of the batch, in this order; copies share their blocks."""
        super().select(rows)
        self._table.select(rows.tolist())

    def join(self, other: CacheStack) -> None:
        """Put the rows of another stack, made for the same store, after one's own."""
        assert isinstance(other, PagedStack)
        both = bool(self.rows and other.rows)
        super().join(other)
        if both:
            self._table.join(other._table)

    def truncate(self, lengths: tuple[int, ...], state: dict[str, Tensor] | None = None) -> None:
        """Forget each row's tokens from `lengths[row]` on, as if they had never been read."""
        super().truncate(lengths, state)
        self._table.truncate(lengths)

    @property
    def nbytes(self) -> int:
        """Memory of the blocks that the rows hold, in bytes, shared ones once."""
        others = sum(each.nbytes for each in self.layers if not isinstance(each, PagedLayerCache))
        return others + len(self._table.held()) * self._table.pool.block_nbytes


class PagedLayerCache:
    """One layer's part of the blocks."""

    def __init__(self, number: int) -> None:
        self.table: BlockTable | None = None
        self._number = number

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        assert self.table is not None
        places, pool = self.table.places, self.table.pool
        assert places is not None, "blocks are reserved where tokens are placed"
        both = pool.layer(self._number).tensors(keys, values, pool)
        for memory, new in zip(both, (keys, values), strict=True):
            places.write(memory, new)
        held_keys, held_values = (places.read(memory, pool.size) for memory in both)
        if rows is None:
            return held_keys, held_values, KeyLayout()
        at = torch.arange(places.length, device=keys.device).expand(len(rows.past), -1)
        return held_keys, held_values, KeyLayout(positions=at)

    @property
    def placeable(self) -> bool:
        return True

    @property
    def left(self) -> int:
        """How many positions can be written at once: any number."""
        return 1 << 30

    def placed(self, extra: int, past: tuple[int, ...]) -> Placement:
        """Return where positions are; the table has reserved room."""
        assert self.table is not None
        pool = self.table.pool
        keys, values = pool.layer(self._number).reserved(pool)
        return Placement(_shared(keys), _shared(values), self.table.runs())

    def written(self, past: tuple[int, ...]) -> None:
        """Do nothing: rows belong to the table."""

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Do nothing: rows belong to the table."""

    def join(self, other: Any) -> None:
        """Do nothing: rows belong to the table."""

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Do nothing: rows belong to the table."""

    @property
    def nbytes(self) -> int:
        """The stack counts blocks, which layers share."""
        return 0


def _shared(memory: Float[Tensor, "K N C"]) -> Float[Tensor, "1 K N C"]:
    """Return memory that belongs to no row: the next row begins where this one does."""
    return memory.as_strided((1, *memory.shape), (0, *memory.stride()))
