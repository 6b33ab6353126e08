"""Flex attention sees the same mask and says what it cannot do."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from coterie.foundation.errors import UserError
from coterie.model.attention import backends, products
from coterie.model.attention.backends import (
    FlexBackend,
    blocked,
)
from coterie.model.attention.backends.flex import definition
from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend
from coterie.model.attention.sparse import BlockPattern, DilatedPattern, StridedPattern
from coterie.model.geometry import Geometry, document_starts

MASKS = {
    "all": Mask(),
    "window": Mask(9),
    "sinks": Mask(9, 3),
    "strided": Mask(sparse=StridedPattern(stride=5)),
    "dilated": Mask(20, 2, DilatedPattern(stride=3)),
    "blocks": Mask(sparse=BlockPattern(size=4)),
    "blocks-window": Mask(30, 2, BlockPattern(size=4, local=0, chosen=3)),
}


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


each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


@each_mask
@pytest.mark.parametrize("packed", [False, True])
def test_flex_sees_the_same(mask, packed):
    """Its function of a mask is the mask, and so is what it computes from it."""
    documents = documents_of([25, 15], [3, 37]) if packed else None
    queries = 40 if packed else 8
    seen = table(mask, queries, 40, documents)
    call = products.prepared(*draw(queries, 40), mask, where(queries, 40, documents))
    cut = 40 - call.keys.shape[2]  # keys that no query sees are gone
    made = create_mask(definition(call), 2 if packed else 1, 1, queries, 40 - cut, device="cpu")
    sinks = call.geometry.num_sinks
    places = torch.cat((torch.arange(sinks), torch.arange(sinks + cut, 40)))
    assert torch.equal(made[:, 0], seen[:, :, places])
    if mask in (MASKS["sinks"], MASKS["blocks"]):  # torch takes seconds to trace each size
        got = attend(*draw(queries, 40), mask, where(queries, 40, documents), backend=FlexBackend())
        torch.testing.assert_close(got, oracle(*draw(queries, 40), seen), rtol=0, atol=1e-12)


def test_flex_says_what_it_cannot_do():
    inputs = [each.requires_grad_() for each in draw(9, 9)]
    with pytest.raises(UserError, match=r"no derivative on the CPU; use attention.backend=blocked"):
        attend(*inputs, Mask(3), backend=FlexBackend())
    with pytest.raises(UserError, match="flex cannot compute this: FlexAttention drops no weights"):
        attend(*draw(9, 9), Mask(3), dropout=0.1, backend=FlexBackend())
    with torch.no_grad():
        attend(*inputs, Mask(3), backend=FlexBackend())


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
