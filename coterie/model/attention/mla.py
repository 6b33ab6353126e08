"""Multi-head latent attention: keys and values of all heads come from one small latent.

DeepSeek-V2, arXiv:2405.04434 §2.1; DeepSeek-V3, arXiv:2412.19437 §2.1.1. A token is compressed to a
latent c of L channels and to a rotary key of R channels; head h projects c up to a key without
position of N channels and to a value of E channels:

    logit(t, s) = (qₕ(t)·Uₕ c(s) + rₕ(t)·k(s)) / sqrt(N + R)      output(t) = Σₛ weight · Vₕ c(s)

where rₕ and k are rotated by their positions. A cache keeps c and k alone. Because Uₕ and Vₕ are
linear they can change sides, (Uₕᵀ qₕ)·c and Vₕ (Σₛ weight · c): this absorbed form, which decoding
uses, never builds keys and values of heads. Optionally each head has a rotary key of its own.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.model.attention.mask_settings import MaskSettings
from coterie.model.attention.observing import observing, received, tell_attention
from coterie.model.attention.products import attend, with_past
from coterie.model.cache import CacheSpec
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count, linear
from coterie.model.geometry import Geometry, narrowed
from coterie.model.norm import Norm, RMSNorm
from coterie.model.part import Part
from coterie.model.position import Rotation


class LatentAttention(MaskSettings):
    """Settings of multi-head latent attention."""

    kind: Literal["mla"] = "mla"
    heads: int = Field(default=4, ge=1, description="query heads")
    kv_rank: int = Field(ge=1, description="channels of the latent of keys and values")
    query_rank: int | None = Field(
        default=None, ge=1, description="channels of the queries' own latent; None: not compressed"
    )
    nope_dim: int = Field(ge=1, description="channels of a head's queries and keys left unrotated")
    rope_dim: int = Field(ge=1, description="rotated channels of a head's queries and keys")
    value_dim: int | None = Field(
        default=None, ge=1, description="channels of a head's values; None: as `nope_dim`"
    )
    rotary_key: Literal["shared", "per_head"] = Field(
        default="shared", description="one rotated key for all heads, or one for each"
    )
    latent_norm: Norm | None = Field(
        default=RMSNorm(), description="normalises both latents before they are up-projected"
    )
    bias: bool = Field(
        default=False, description="biases where a token is compressed and on the output"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of attention weights dropped"
    )
    absorb: bool | None = Field(
        default=None,
        description="never project the latents of keys and values up; None: where that costs less",
    )

    @property
    def value_channels(self) -> int:
        """Channels of a head's values."""
        return self.value_dim or self.nope_dim

    @property
    def rotary_keys(self) -> int:
        """How many rotated keys a position has."""
        return 1 if self.rotary_key == "shared" else self.heads

    def channels(self, width: int) -> int:
        """Return the channels of a head that positions turn."""
        return self.rope_dim

    def cache_spec(self) -> CacheSpec:
        """Return what a cache must keep for it: latents, and rotary keys in the place of values."""
        return replace(super().cache_spec(), rotated="values")

    def check(self, width: int) -> None:
        """Accept every width: heads do not share it."""

    def build(self, width: int) -> "LatentAttentionPart":
        return LatentAttentionPart(self, width)

    def counts(self, width: int, context: int) -> Count:
        """Return its count in the plain form; a query sees `mean_visible` positions on average."""
        key, value = self.nope_dim + self.rope_dim, self.value_channels
        compressed = self.kv_rank + self.rotary_keys * self.rope_dim
        mask = self.mask()
        products = Count(
            "products",
            f"window {self.window}" if self.window else "all before",
            flops=2.0 * self.heads * (key + value) * mask.mean_visible(context),
            cache=compressed,
        )
        parts = self._query_counts(width, self.heads * key)
        parts.append(linear("kv_down", width, compressed, bias=self.bias))
        if self.latent_norm is not None:
            parts.append(self.latent_norm.counts("kv_norm", self.kv_rank))
        parts += [
            linear("kv_up", self.kv_rank, self.heads * (self.nope_dim + value)),
            products,
            linear("output", self.heads * value, width, bias=self.bias),
        ]
        detail = f"{self.heads} heads of {self.nope_dim} + {self.rope_dim} from {self.kv_rank}"
        return Count.of("attention", detail, parts)

    def _query_counts(self, width: int, inner: int) -> list[Count]:
        if self.query_rank is None:
            return [linear("query", width, inner)]
        parts = [linear("query_down", width, self.query_rank, bias=self.bias)]
        if self.latent_norm is not None:
            parts.append(self.latent_norm.counts("query_norm", self.query_rank))
        return [*parts, linear("query_up", self.query_rank, inner)]


class LatentAttentionPart(Part):
    """Compresses tokens to latents and rotary keys; attends by projecting them up, or without.

    Rows of the matrices: `query` and `query_up` hold for each head its N unrotated and R rotated
    channels, `kv_down` the latent and then the rotary keys, `kv_up` for each head N of the key and
    E of the value.
    """

    roles = {
        "query": "matrix", "query_down": "matrix", "query_up": "matrix", "kv_down": "matrix",
        "kv_up": "matrix", "output": "matrix",
        "query_down_bias": "bias", "kv_down_bias": "bias", "output_bias": "bias",
    }  # fmt: skip
    outputs = frozenset({"output"})
    query: nn.Parameter | None
    query_down: nn.Parameter | None
    query_up: nn.Parameter | None

    def __init__(self, settings: LatentAttention, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.mask = settings.mask()
        heads, rank, query_rank = settings.heads, settings.kv_rank, settings.query_rank
        key, value = settings.nope_dim + settings.rope_dim, settings.value_channels
        compressed = rank + settings.rotary_keys * settings.rope_dim
        whole = query_rank is None
        self.query = _matrix(heads * key, width) if whole else None
        self.query_down = None if query_rank is None else _matrix(query_rank, width)
        self.query_up = None if query_rank is None else _matrix(heads * key, query_rank)
        self.kv_down = _matrix(compressed, width)
        self.kv_up = _matrix(heads * (settings.nope_dim + value), rank)
        self.output = _matrix(width, heads * value)
        biased = settings.bias
        compresses = biased and query_rank is not None
        self.query_down_bias = _vector(query_rank) if compresses and query_rank else None
        self.kv_down_bias = _vector(compressed) if biased else None
        self.output_bias = _vector(width) if biased else None
        norm = settings.latent_norm
        self.query_norm = None if norm is None or query_rank is None else norm.build(query_rank)
        self.kv_norm = None if norm is None else norm.build(rank)

    def forward(
        self, x: Float[Tensor, "B T D"], context: ForwardContext = EMPTY
    ) -> Float[Tensor, "B T D"]:
        rotate = context.rotation
        nope, rotated = self._queries(x, rotate)
        latents, rotary = self._compress(x, rotate)
        latents, rotary, geometry = with_past(latents, rotary, context)
        geometry, (latents, rotary) = narrowed(geometry, self.mask, latents, rotary)
        scale = (nope.shape[-1] + rotated.shape[-1]) ** -0.5
        if rotate is not None:
            scale *= rotate.logit_scale
        if (cache := observing(context)) is not None:
            lengths = context.rows.lengths if context.rows is not None else None
            queries, keys = self._lowered(nope, rotated, latents, rotary)
            cache.observe(received(queries, keys, self.mask, geometry, scale, lengths))
        if (watch := context.attention_watch) is not None:
            queries, keys = self._lowered(nope, rotated, latents, rotary)
            tell_attention(watch, queries, keys, self.mask, geometry, scale)
        if self.absorbs(x.shape[1], latents.shape[2]):
            seen = self._visible(geometry, x.device)
            mixed = self._absorbed(nope * scale, rotated * scale, latents, rotary, seen)
        else:
            keys, values = self._up_project(latents, rotary)
            mixed = attend(
                torch.cat((nope, rotated), -1), keys, values, self.mask, geometry,
                dropout=self._dropout, scale=scale, backend=self.settings.backend,
            )  # fmt: skip
        return F.linear(mixed.transpose(1, 2).flatten(2), self.output, self.output_bias)

    def absorbs(self, new: int, seen: int) -> bool:
        """Return whether `new` queries read `seen` positions in the absorbed form.

        Where the text is read at once it does not: attention kernels then never hold the weights.
        """
        sizes = self.settings
        if sizes.absorb is not None:
            return sizes.absorb
        # Multiplications. Plain: project latents up, multiply with keys and values of all heads.
        # Absorbed: project queries down and outputs up, multiply with latents and rotary keys.
        up_projection = sizes.heads * (sizes.nope_dim + sizes.value_channels) * sizes.kv_rank
        heads = new * seen * sizes.heads
        heads_work = sizes.nope_dim + sizes.rope_dim + sizes.value_channels
        plain = seen * up_projection + heads * heads_work
        absorbed = new * up_projection + heads * (2 * sizes.kv_rank + sizes.rope_dim)
        return new < seen and absorbed < plain

    @property
    def _dropout(self) -> float:
        return self.settings.dropout if self.training else 0.0

    def _queries(
        self, x: Float[Tensor, "B T D"], rotate: Rotation | None
    ) -> tuple[Float[Tensor, "B H T N"], Float[Tensor, "B H T R"]]:
        """Return the unrotated and the rotated part of the queries."""
        sizes = self.settings
        if self.query is not None:
            query = F.linear(x, self.query)
        else:
            assert self.query_down is not None
            assert self.query_up is not None
            latent = F.linear(x, self.query_down, self.query_down_bias)
            query = F.linear(_normed(self.query_norm, latent), self.query_up)
        query = query.unflatten(-1, (sizes.heads, sizes.nope_dim + sizes.rope_dim))
        nope, rotated = query.split((sizes.nope_dim, sizes.rope_dim), -1)
        if rotate is not None:
            rotated = rotate(_copied(rotated))
        return nope.transpose(1, 2), rotated.transpose(1, 2)

    def _compress(
        self, x: Float[Tensor, "B T D"], rotate: Rotation | None
    ) -> tuple[Float[Tensor, "B 1 T L"], Float[Tensor, "B J T R"]]:
        """Return all that is kept of tokens: latents after their norm, rotary keys rotated."""
        sizes = self.settings
        both = F.linear(x, self.kv_down, self.kv_down_bias)
        latents, rotary = both.split((sizes.kv_rank, both.shape[-1] - sizes.kv_rank), -1)
        rotary = rotary.unflatten(-1, (sizes.rotary_keys, sizes.rope_dim))
        if rotate is not None:
            rotary = rotate(_copied(rotary))
        return _normed(self.kv_norm, latents).unsqueeze(1), rotary.transpose(1, 2)

    def _up_project(
        self, latents: Float[Tensor, "B 1 S L"], rotary: Float[Tensor, "B J S R"]
    ) -> tuple[Float[Tensor, "B H S C"], Float[Tensor, "B H S E"]]:
        """Return keys and values of every head."""
        sizes = self.settings
        both = F.linear(latents[:, 0], self.kv_up).unflatten(-1, (sizes.heads, -1))
        nope, values = both.transpose(1, 2).split((sizes.nope_dim, sizes.value_channels), -1)
        rotary = rotary.expand(-1, sizes.heads, -1, -1)
        return torch.cat((nope, rotary), -1), values

    def _absorbed(
        self,
        nope: Float[Tensor, "B H T N"],
        rotated: Float[Tensor, "B H T R"],
        latents: Float[Tensor, "B 1 S L"],
        rotary: Float[Tensor, "B J S R"],
        seen: Bool[Tensor, "*B T S"] | None,
    ) -> Float[Tensor, "B H T E"]:
        """Attend to the latents themselves, which are read where they lie.

        Queries come scaled; `seen` is which positions each of them sees, None: all.
        """
        sizes = self.settings
        up_projected = self.kv_up.unflatten(0, (sizes.heads, -1))
        to_key, to_value = up_projected.split((sizes.nope_dim, sizes.value_channels), 1)
        lowered = torch.matmul(nope, to_key)
        logits = _products(lowered, latents.mT) + _products(rotated, rotary.mT)
        if seen is not None:
            logits = logits.masked_fill(~seen, -torch.inf)
        kind = torch.promote_types(logits.dtype, torch.float32)
        weights = logits.softmax(-1, kind).to(latents.dtype)
        if self._dropout:
            weights = F.dropout(weights, self._dropout)
        return torch.matmul(_products(weights, latents), to_value.mT)

    def _lowered(
        self, nope: Tensor, rotated: Tensor, latents: Tensor, rotary: Tensor
    ) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B J S L"]]:
        """Return queries and keys whose products are those of the absorbed form."""
        to_key = self.kv_up.unflatten(0, (self.settings.heads, -1))[:, : self.settings.nope_dim]
        queries = torch.cat((torch.matmul(nope, to_key), rotated), -1)
        return queries, torch.cat((latents.expand(-1, rotary.shape[1], -1, -1), rotary), -1)

    def _visible(self, geometry: Geometry, device: torch.device) -> Bool[Tensor, "*B T S"] | None:
        """Return which of the keys each query sees, the heads' place kept free; None: all."""
        if not geometry.per_row and geometry.num_queries == 1 and self.mask.sparse is None:
            return None  # what a lone query does not see was cut off
        seen = geometry.visible(self.mask, device)
        return seen[:, None] if geometry.per_row else seen


def _products(rows: Float[Tensor, "B H T C"], matrix: Tensor) -> Tensor:
    """Multiply with matrices [B, J, C, S] of every head, or of one for all heads."""
    batch, heads, length, channels = rows.shape
    joined = rows.reshape(batch, matrix.shape[1], -1, channels)
    return torch.matmul(joined, matrix).view(batch, heads, length, -1)


def _normed(norm: nn.Module | None, latent: Tensor) -> Tensor:
    """Normalise; under autocast norms return float32, but what follows wants one type."""
    return latent if norm is None else norm(latent).to(latent.dtype)


def _copied(part: Tensor) -> Tensor:
    """Return a part of channels at a place of its own, where `contiguous` may leave it."""
    return part.clone(memory_format=torch.contiguous_format)


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns))


def _vector(size: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(size))
