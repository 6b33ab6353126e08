"""Grouped-query attention: groups of query heads share the keys and values of one head.

Ainslie et al. 2023, arXiv:2305.13245. With as many key heads as query heads it is multi-head
attention (Vaswani et al. 2017, arXiv:1706.03762), with one it is multi-query attention (Shazeer
2019, arXiv:1911.02150). Optional normalisation of queries and keys per head: Henry et al. 2020,
arXiv:2010.04245.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.model.attention.mask_settings import MaskSettings
from coterie.model.attention.observing import observing, received, tell_attention
from coterie.model.attention.products import attend, with_past
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count, linear
from coterie.model.norm import Norm
from coterie.model.part import Part


class GroupedAttention(MaskSettings):
    """Settings of multi-head, grouped-query and multi-query attention."""

    kind: Literal["grouped"] = "grouped"
    heads: int = Field(default=4, ge=1, description="query heads")
    kv_heads: int | None = Field(
        default=None, ge=1, description="key and value heads; None: as `heads`"
    )
    head_dim: int | None = Field(
        default=None, ge=1, description="channels of a head; None: width / heads"
    )
    bias: bool | Literal["qkv"] = Field(
        default=False, description="biases on queries, keys, values and output, or all but output"
    )
    query_key_norm: Norm | None = Field(
        default=None, description="normalises queries and keys; true means rms"
    )
    query_key_norm_over: Literal["head", "all"] = Field(
        default="head", description="each head by itself, or all heads of a token as one vector"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of attention weights dropped"
    )

    @field_validator("query_key_norm", mode="before")
    @classmethod
    def _flag(cls, value: Any) -> Any:
        return {True: "rms", False: None}[value] if isinstance(value, bool) else value

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads

    def channels(self, width: int) -> int:
        return self.head_dim or width // self.heads

    def normalised(self, width: int) -> dict[str, int]:
        """Return over how many channels queries and keys are normalised."""
        over = self.query_key_norm_over == "all"
        heads = {"query": self.heads if over else 1, "key": self.key_heads if over else 1}
        return {name: number * self.channels(width) for name, number in heads.items()}

    def check(self, width: int) -> None:
        """Make sure that the heads fit the model's width and each other.

        Raises:
            ValueError: they do not.
        """
        if self.head_dim is None and width % self.heads:
            raise ValueError(
                f"{self.heads} attention heads cannot share a width of {width} evenly; "
                "change heads or width, or set head_dim"
            )
        if self.heads % self.key_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")

    def build(self, width: int) -> "GroupedAttentionPart":
        return GroupedAttentionPart(self, width)

    def counts(self, width: int, context: int) -> Count:
        """Return its count; a query sees `mean_visible` positions of the mask on average."""
        channels, bias = self.channels(width), self.bias is not False
        inner, shared = self.heads * channels, self.key_heads * channels
        products = Count(
            "products",
            self.mask().words,
            flops=4.0 * inner * self.mask().mean_visible(context),
            cache=2 * shared,
        )
        parts = [
            linear("query", width, inner, bias=bias),
            linear("key", width, shared, bias=bias),
            linear("value", width, shared, bias=bias),
            products,
            linear("output", inner, width, bias=self.bias is True),
        ]
        if self.query_key_norm is not None:
            sizes = self.normalised(width)
            parts += [self.query_key_norm.counts(f"{x}_norm", n) for x, n in sizes.items()]
        return Count.of("attention", f"{self.heads}/{self.key_heads} heads of {channels}", parts)


class GroupedAttentionPart(Part):
    """Projects to queries, keys and values, attends, projects back."""

    roles = {
        "query": "matrix", "key": "matrix", "value": "matrix", "output": "matrix",
        "query_bias": "bias", "key_bias": "bias", "value_bias": "bias", "output_bias": "bias",
    }  # fmt: skip
    outputs = frozenset({"output"})
    query: nn.Parameter
    key: nn.Parameter
    value: nn.Parameter
    query_bias: nn.Parameter | None
    key_bias: nn.Parameter | None
    value_bias: nn.Parameter | None
    output_bias: nn.Parameter | None

    def __init__(self, settings: GroupedAttention, width: int) -> None:
        super().__init__()
        self.mask, self.backend = settings.mask(), settings.backend
        self.backend.build()  # what it needs must be there before anything is computed
        self.channels = settings.channels(width)
        self.dropout = settings.dropout
        inner, shared = settings.heads * self.channels, settings.key_heads * self.channels
        for name, rows in (("query", inner), ("key", shared), ("value", shared)):
            self.register_parameter(name, nn.Parameter(torch.empty(rows, width)))
            bias = nn.Parameter(torch.empty(rows)) if settings.bias is not False else None
            self.register_parameter(f"{name}_bias", bias)
        self.output = nn.Parameter(torch.empty(width, inner))
        bias = nn.Parameter(torch.empty(width)) if settings.bias is True else None
        self.register_parameter("output_bias", bias)
        norm, sizes = settings.query_key_norm, settings.normalised(width)
        self.query_norm = None if norm is None else norm.build(sizes["query"])
        self.key_norm = None if norm is None else norm.build(sizes["key"])
        self.norm_over_all = settings.query_key_norm_over == "all"

    def forward(
        self, x: Float[Tensor, "B T D"], context: ForwardContext = EMPTY
    ) -> Float[Tensor, "B T D"]:
        heads = (*x.shape[:2], -1, self.channels)
        query = self._normalised(F.linear(x, self.query, self.query_bias), self.query_norm)
        keys = self._normalised(F.linear(x, self.key, self.key_bias), self.key_norm)
        values = F.linear(x, self.value, self.value_bias).view(heads).transpose(1, 2)
        scale = self.channels**-0.5
        if (rotation := context.rotation) is not None:
            query, keys = rotation(query), rotation(keys)
            scale *= rotation.logit_scale
        # Under autocast norms return float32; the products want one type.
        query = query.to(values.dtype).transpose(1, 2)
        keys = keys.to(values.dtype).transpose(1, 2)
        keys, values, geometry = with_past(keys, values, context)
        if (cache := observing(context)) is not None:
            lengths = context.rows.lengths if context.rows is not None else None
            cache.observe(received(query, keys, self.mask, geometry, scale, lengths))
        if (watch := context.attention_watch) is not None:
            tell_attention(watch, query, keys, self.mask, geometry, scale)
        mixed = attend(
            query, keys, values, self.mask, geometry,
            dropout=self.dropout if self.training else 0.0, scale=scale, backend=self.backend,
        )  # fmt: skip
        return F.linear(mixed.transpose(1, 2).flatten(2), self.output, self.output_bias)

    def _normalised(self, x: Float[Tensor, "B T I"], norm: nn.Module | None) -> Tensor:
        """Return queries or keys [B, T, H, C], normalised if they are to be."""
        if norm is not None and self.norm_over_all:
            x = norm(x)
        heads = x.unflatten(-1, (-1, self.channels))
        return heads if norm is None or self.norm_over_all else norm(heads)
