"""What FlashAttention is told, by a stand-in for its function."""

from __future__ import annotations

import itertools

import pytest
import torch

from coterie.foundation.errors import MissingExtraError
from coterie.model.attention import backends, products
from coterie.model.attention.backends import (
    FlashBackend,
    blocked,
)
from coterie.model.attention.backends.flash import FlashFunction
from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend
from coterie.model.attention.sparse import StridedPattern
from coterie.model.geometry import Geometry, document_starts


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Cut tiny texts into several tiles, and let the automatic choice take them."""
    monkeypatch.setattr(blocked, "_TILE", 16)
    monkeypatch.setattr(backends.auto, "_SHORT", 24)


def draw(queries, keys, heads=(4, 2), channels=(8, 6), dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    shapes = [(heads[0], queries, channels[0]), (heads[1], keys, channels[0])]
    shapes.append((heads[1], keys, channels[1]))
    return [torch.randn(batch, *each, generator=generator, dtype=dtype) for each in shapes]


def table(mask, queries, keys, documents=None):
    """Return which keys each of the last queries sees, [B, T, S], pair by pair."""
    at = torch.arange(keys)
    seen = mask.visible(at[keys - queries :], at)[None]
    if documents is None:
        return seen
    seen = torch.zeros(len(documents), keys, keys, dtype=torch.bool)
    for row, numbers in enumerate(documents.tolist()):
        for begin, length in runs(numbers):
            own = torch.arange(length)
            part = slice(begin, begin + length)
            seen[row, part, part] = mask.visible(own, own)
    return seen


def runs(numbers):
    begin = 0
    for _, group in itertools.groupby(numbers):
        length = len(list(group))
        yield begin, length
        begin += length


def where(queries, keys, documents=None):
    starts = None if documents is None else document_starts(documents)
    return Geometry(queries, keys, starts=starts)


def oracle(query, keys, values, seen, scale=None):
    """Softmax over the keys that a table lets through, head by head, in float64."""
    query, keys, values = (each.double() for each in (query, keys, values))
    groups = query.shape[1] // keys.shape[1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    heads = []
    for head in range(query.shape[1]):
        scores = query[:, head] @ keys[:, head // groups].mT * scale
        heads.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values[:, head // groups])
    return torch.stack(heads, dim=1)


def documents_of(*lengths):
    return torch.tensor([[n for n, length in enumerate(row) for _ in range(length)]
                         for row in lengths])  # fmt: skip


# --- flash-attn: its words, said to a stand-in that computes what they mean -----------------------


def fixed(q, k, v, dropout_p, softmax_scale, causal, window_size):
    """What flash_attn_func computes: [B, T, H, C], causal from the lower right, window (w−1, 0)."""
    assert causal
    assert not dropout_p
    queries, keys = q.shape[1], k.shape[1]
    at = torch.arange(keys - queries, keys)[:, None]
    distance = at - torch.arange(keys)
    seen = (distance >= 0) & ((window_size[0] < 0) | (distance <= window_size[0]))
    inputs = (each.transpose(1, 2) for each in (q, k, v))
    return oracle(*inputs, seen, softmax_scale).transpose(1, 2)


def packed(q, k, v, cu_q, cu_k, longest_q, longest_k, **words):
    """What flash_attn_varlen_func computes: texts end to end, [total, H, C]."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert longest_q == longest_k == int(cu_q.diff().max())
    parts = []
    for begin, stop in itertools.pairwise(cu_q.tolist()):
        parts.append(fixed(*(each[None, begin:stop] for each in (q, k, v)), **words)[0])
    return torch.cat(parts)


class StandIn(FlashBackend):
    """flash-attn that computes on the CPU, in float64."""

    def build(self):
        function = FlashFunction(fixed, packed)
        function.refuses = lambda call: None
        return function


@pytest.mark.parametrize("window", [None, 1, 5, 60])
@pytest.mark.parametrize(("queries", "keys"), [(1, 40), (40, 40), (6, 40)])
def test_flash_is_told_what_is_meant(window, queries, keys):
    inputs = draw(queries, keys, channels=(8, 8))
    got = attend(*inputs, Mask(window), scale=0.2, backend=StandIn())
    expected = oracle(*inputs, table(Mask(window), queries, keys), 0.2)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    if queries == keys:
        documents = documents_of([30, 1, 9], [40])
        got = attend(*inputs, Mask(window), where(queries, keys, documents), backend=StandIn())
        expected = oracle(*inputs, table(Mask(window), 40, 40, documents))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_flash_says_what_it_cannot_do():
    with pytest.raises(MissingExtraError, match=r"coterie\[flash\]"):
        attend(*draw(4, 4), Mask(), backend=FlashBackend())
    call = products.prepared(*draw(4, 4), Mask(), where(4, 4))
    function = FlashFunction(fixed, packed)
    assert "runs on CUDA, not on cpu" in function.refuses(call)
    with pytest.raises(ValueError, match="knows windows, not “window 4, 2 sinks”"):
        FlashBackend().check(Mask(4, 2))
    with pytest.raises(ValueError, match="knows windows, not “all before, strided”"):
        FlashBackend().check(Mask(sparse=StridedPattern()))
    FlashBackend().check(Mask(4))
