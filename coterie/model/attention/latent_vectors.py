"""Latent-vector attention: finished chunks of text are read through a few learned latent vectors.

The text is cut into chunks of P tokens. Attention has two stages, as in the Perceiver (Jaegle et
al. 2021, arXiv:2103.03206) and the Set Transformer's induced points (Lee et al. 2019,
arXiv:1810.00825), made causal by finishing one chunk at a time:

1. *Latents read the context.* When a chunk is finished, the L latents of each key head, standing at
   the chunk's last position, attend to its P keys: a(l, s) = softmaxₛ(latentₗ · keyₛ / √C). The
   chunk's summaries are that mean of the keys and that mean of the values:
   Kₗ = Σₛ a(l, s) keyₛ and Vₗ = Σₛ a(l, s) valueₛ.
2. *Queries read the latents.* A token attends, in one softmax, to the summaries of all chunks that
   were finished before its own chunk began, and to the tokens of its own chunk up to itself.

Summaries need no positions of their own: the mean of turned keys gives the mean of the logits that
the query would have had with the tokens themselves, and a latent that stands where its chunk ends
makes a(l, s) depend on distances alone. With P = L = 1 it is ordinary attention. A text of T tokens
costs O(T·(T/P·L + P)); a cache keeps L summaries for P tokens, and the running chunk.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.attention.chunks import Chunks, DocumentChunks, RowChunks
from coterie.model.cache import CacheSpec, SummaryCache
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count, linear
from coterie.model.geometry import UnevenRows
from coterie.model.part import Part
from coterie.model.position import Rotation


class LatentVectorAttention(Settings):
    """Settings of latent-vector attention."""

    kind: Literal["latent_vectors"] = "latent_vectors"
    heads: int = Field(default=4, ge=1, description="query heads")
    kv_heads: int | None = Field(
        default=None, ge=1, description="key and value heads; None: as `heads`"
    )
    head_dim: int | None = Field(
        default=None, ge=1, description="channels of a head; None: width / heads"
    )
    chunk: int = Field(default=64, ge=1, description="tokens that are summarised together")
    latents: int = Field(default=16, ge=1, description="summaries of a finished chunk")
    bias: bool = Field(default=False, description="biases on queries, keys, values and output")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the queries' attention weights dropped"
    )

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads

    def channels(self, width: int) -> int:
        return self.head_dim or width // self.heads

    def cache_spec(self) -> CacheSpec:
        return CacheSpec(summaries=self.latents, run=self.chunk)

    def check(self, width: int) -> None:
        """Make sure that the heads fit the model's width and each other.

        Raises:
            ValueError: they do not, or summaries would be more than what they summarise.
        """
        if self.head_dim is None and width % self.heads:
            raise ValueError(
                f"{self.heads} attention heads cannot share a width of {width} evenly; "
                "change heads or width, or set head_dim"
            )
        if self.heads % self.key_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.latents > self.chunk:
            raise ValueError(
                f"latents={self.latents} would summarise chunk={self.chunk} tokens by more vectors "
                "than there are tokens; raise chunk or lower latents"
            )

    def build(self, width: int) -> "LatentVectorAttentionPart":
        return LatentVectorAttentionPart(self, width)

    def counts(self, width: int, context: int) -> Count:
        """Return its count: summaries are counted where a later token reads them.

        The cache is that of finished chunks, per token; a running chunk keeps its tokens whole.
        """
        channels = self.channels(width)
        inner, shared = self.heads * channels, self.key_heads * channels
        size = self.latents * shared
        read = (context - 1) // self.chunk  # chunks that are finished before another begins
        rest = context - read * self.chunk
        own = read * self.chunk * (self.chunk + 1) / 2 + rest * (rest + 1) / 2
        far = self.latents * (self.chunk * read * (read - 1) / 2 + rest * read)
        parts = [
            linear("query", width, inner, bias=self.bias),
            linear("key", width, shared, bias=self.bias),
            linear("value", width, shared, bias=self.bias),
            Count(
                "latents",
                f"{self.latents} summaries of {self.chunk} tokens",
                size,
                size,
                flops=6.0 * size * read * self.chunk / context,
                cache=2 * size / self.chunk,
            ),
            Count("products", "own chunk and summaries", flops=4.0 * inner * (own + far) / context),
            linear("output", inner, width, bias=self.bias),
        ]
        return Count.of("attention", f"{self.heads}/{self.key_heads} heads of {channels}", parts)


@dataclass(frozen=True)
class _Summaries:
    """Summaries of chunks in their order: keys and values [B, K, M, C]."""

    keys: Float[Tensor, "B K M C"]
    values: Float[Tensor, "B K M C"]


class LatentVectorAttentionPart(Part):
    """Projects to queries, keys and values; summarises chunks; attends; projects back."""

    roles = {
        "query": "matrix", "key": "matrix", "value": "matrix", "output": "matrix",
        "latents": "matrix",
        "query_bias": "bias", "key_bias": "bias", "value_bias": "bias", "output_bias": "bias",
    }  # fmt: skip
    outputs = frozenset({"output"})
    query: nn.Parameter
    key: nn.Parameter
    value: nn.Parameter
    query_bias: nn.Parameter | None
    key_bias: nn.Parameter | None
    value_bias: nn.Parameter | None

    def __init__(self, settings: LatentVectorAttention, width: int) -> None:
        super().__init__()
        self.chunk = settings.chunk
        self.dropout = settings.dropout
        self.channels = settings.channels(width)
        inner, shared = settings.heads * self.channels, settings.key_heads * self.channels
        for name, rows in (("query", inner), ("key", shared), ("value", shared)):
            self.register_parameter(name, nn.Parameter(torch.empty(rows, width)))
            bias = nn.Parameter(torch.empty(rows)) if settings.bias else None
            self.register_parameter(f"{name}_bias", bias)
        self.latents = nn.Parameter(
            torch.empty(settings.key_heads, settings.latents, self.channels)
        )
        self.output = nn.Parameter(torch.empty(width, inner))
        self.output_bias = nn.Parameter(torch.empty(width)) if settings.bias else None

    def forward(
        self, x: Float[Tensor, "B T D"], context: ForwardContext = EMPTY
    ) -> Float[Tensor, "B T D"]:
        """Let each token read the summaries of earlier chunks and the tokens of its own."""
        rotate, cache = context.rotation, context.kv_cache
        heads = (*x.shape[:2], -1, self.channels)
        query = F.linear(x, self.query, self.query_bias).view(heads)
        keys = F.linear(x, self.key, self.key_bias).view(heads)
        values = F.linear(x, self.value, self.value_bias).view(heads).transpose(1, 2)
        if rotate is not None:
            query, keys = rotate(query), rotate(keys)
        keys = keys.transpose(1, 2)
        scale = self.channels**-0.5 * (1.0 if rotate is None else rotate.logit_scale)
        query = query.transpose(1, 2) * scale
        alike = context.document_starts is None and context.rows is None
        latents = self._rotated_latents(1 if alike else len(x), x.shape[1], rotate) * scale
        if cache is None:
            chunks = self._chunks(x, context.document_starts)
            mixed = self._chunked(chunks, query, keys, values, latents)
        else:
            assert isinstance(cache, SummaryCache), "the cache was not built from this layer's spec"
            mixed = self._cached(cache, context.rows, query, keys, values, latents)
        return F.linear(mixed.transpose(1, 2).flatten(2), self.output, self.output_bias)

    def _chunks(self, x: Tensor, starts: Tensor | None) -> Chunks:
        """Return how the tokens make chunks."""
        if starts is not None:
            return DocumentChunks(starts, self.chunk)
        return RowChunks(x.shape[1], x.shape[1], self.chunk, x.device)

    def _chunked(
        self,
        chunks: Chunks,
        query: Float[Tensor, "B H T C"],
        keys: Float[Tensor, "B K S C"],
        values: Float[Tensor, "B K S C"],
        latents: Float[Tensor, "b T K L C"],
    ) -> Float[Tensor, "B H T C"]:
        """Attend to chunks of text that are read at once."""
        keys, values = chunks.spread(keys), chunks.spread(values)
        # Nobody reads the last chunk's summaries.
        new = self._summaries_of(chunks, chunks.number - 1, latents, keys, values)
        return self._read(chunks, query, keys, values, None, new)

    def _cached(
        self,
        cache: SummaryCache,
        rows: UnevenRows | None,
        query: Float[Tensor, "B H T C"],
        keys: Float[Tensor, "B K T C"],
        values: Float[Tensor, "B K T C"],
        latents: Float[Tensor, "b T K L C"],
    ) -> Float[Tensor, "B H T C"]:
        """Attend to the past too; rows that finish chunks at different times are read one by one.

        The running chunk's keys and values are added to the cache, and chunks that are finished
        are exchanged for their summaries.
        """
        if rows is None:
            return self._one_after_the_past(cache, query, keys, values, latents)
        mixed = torch.zeros_like(query)
        latents = latents.expand(len(rows.lengths), *latents.shape[1:])
        for row, past in enumerate(rows.past):
            one = slice(row, row + 1)
            for start, stop, document in rows.pieces(row):
                held = cache.row(row, len(rows.lengths))
                if document == past + start:  # no token sees the document before
                    held.clear()
                q, k, v = (each[one, :, start:stop] for each in (query, keys, values))
                own = latents[one, start:stop]
                mixed[one, :, start:stop] = self._one_after_the_past(held, q, k, v, own)
        return mixed

    def _one_after_the_past(
        self, cache: SummaryCache, query: Tensor, keys: Tensor, values: Tensor, latents: Tensor
    ) -> Tensor:
        """Attend in rows that have read equally much."""
        held = cache.summaries()
        past = None if held is None else _Summaries(*held)
        keys, values, _ = cache.append(keys, values)
        chunks = RowChunks(keys.shape[2], query.shape[2], self.chunk, query.device)
        finished = keys.shape[2] // self.chunk
        keys, values = chunks.spread(keys), chunks.spread(values)
        new = self._summaries_of(chunks, finished, latents, keys, values)
        mixed = self._read(chunks, query, keys, values, past, new)
        if new is not None:
            cache.summarise(finished * self.chunk, new.keys, new.values)
        return mixed

    def _rotated_latents(
        self, rows: int, length: int, rotate: Rotation | None
    ) -> Float[Tensor, "b T K L C"]:
        """Return the latents as they stand at each token; one row serves rows that are alike."""
        latents = self.latents.flatten(0, 1).expand(rows, length, -1, -1)
        if rotate is not None:
            latents = rotate(latents)
        return latents.unflatten(2, self.latents.shape[:2])

    def _summaries_of(
        self, chunks: Chunks, finished: int, latents: Tensor, keys: Tensor, values: Tensor
    ) -> _Summaries | None:
        """Return the summaries of the first chunks; None where none is finished."""
        if not finished:
            return None
        ends = chunks.ends(finished)
        rows = torch.arange(len(ends), device=ends.device)[:, None]
        standing = latents.expand(len(ends), *latents.shape[1:])[rows, ends].transpose(1, 2)
        return self._summarise(standing, keys[:, :, :finished], values[:, :, :finished])

    def _summarise(
        self,
        latents: Float[Tensor, "b K n L C"],
        keys: Float[Tensor, "B K n P C"],
        values: Float[Tensor, "B K n P C"],
    ) -> _Summaries:
        """Return the summaries of whole chunks: the first stage."""
        weights = _softmax(torch.matmul(latents, keys.mT), values)
        summary_keys = torch.matmul(weights, keys).flatten(2, 3)
        return _Summaries(summary_keys, torch.matmul(weights, values).flatten(2, 3))

    def _read(
        self,
        chunks: Chunks,
        query: Float[Tensor, "B H T C"],
        keys: Float[Tensor, "B K n P C"],
        values: Float[Tensor, "B K n P C"],
        past: _Summaries | None,
        new: _Summaries | None,
    ) -> Float[Tensor, "B H T C"]:
        """Let queries read their own chunks and the summaries of those before: the second stage."""
        query = chunks.spread_queries(query)  # [B, H, n, Q, C]
        # Query heads that share keys become rows of one product.
        grouped = query.unflatten(1, (keys.shape[1], -1)).transpose(2, 3)  # [B, K, n, G, Q, C]
        own = torch.matmul(grouped.flatten(3, 4), keys.mT).view(*grouped.shape[:5], -1)
        logits = [own.masked_fill(~chunks.own, -torch.inf)]
        sources: list[_Summaries] = []
        rows = grouped.flatten(2, 4)
        if past is not None:
            sources.append(past)
            logits.append(torch.matmul(rows, past.keys.mT).view(*grouped.shape[:5], -1))
        if new is not None and chunks.number > 1:
            number = (chunks.number - 1) * self.latents.shape[1]
            new = _Summaries(new.keys[:, :, :number], new.values[:, :, :number])
            sources.append(new)
            far = torch.matmul(rows, new.keys.mT).view(*grouped.shape[:5], -1)
            logits.append(far.masked_fill(~self._seen(chunks), -torch.inf))
        weights = _softmax(torch.cat(logits, -1), values)
        if self.dropout and self.training:
            weights = F.dropout(weights, self.dropout)
        pieces = weights.split([each.shape[-1] for each in logits], -1)
        mixed = torch.matmul(pieces[0].flatten(3, 4), values).view_as(grouped)
        for piece, source in zip(pieces[1:], sources, strict=True):
            mixed = mixed + torch.matmul(piece.flatten(2, 4), source.values).view_as(grouped)
        return chunks.gather_queries(mixed.transpose(2, 3).flatten(1, 2))

    def _seen(self, chunks: Chunks) -> Bool[Tensor, "*B n 1 1 M"]:
        """Return which summaries the queries of each chunk read."""
        each = chunks.before[..., :-1].repeat_interleave(self.latents.shape[1], -1)
        return each[..., None, None, :]


def _softmax(logits: Tensor, like: Tensor) -> Tensor:
    """Return weights in the type of what they weigh, computed in at least float32."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    return logits.softmax(-1, kind).to(like.dtype)
