"""Back ends against the definition in float64: every one that can, with every mask and size."""

from __future__ import annotations

import itertools

import pytest
import torch

from coterie.foundation.settings import members
from coterie.model.attention import backends
from coterie.model.attention.backends import (
    AutoBackend,
    Backend,
    BlockedBackend,
    DenseBackend,
    FlashBackend,
    FlexBackend,
    MeasuredBackend,
    SDPABackend,
    blocked,
)
from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend
from coterie.model.attention.sparse import BlockPattern, DilatedPattern, StridedPattern
from coterie.model.geometry import Geometry, document_starts

HERE = [AutoBackend(), DenseBackend(), SDPABackend(), BlockedBackend()]
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


each_here = pytest.mark.parametrize("backend", HERE, ids=lambda b: b.kind)
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


def test_every_back_end_is_tested():
    tested = {type(each) for each in HERE} | {FlexBackend, MeasuredBackend, FlashBackend}
    assert tested == set(members(Backend))


@each_here
@each_mask
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 40), (50, 50), (7, 40), (33, 50)])
def test_agrees_with_the_definition(backend, mask, queries, keys):
    inputs = draw(queries, keys)
    got = attend(*inputs, mask, backend=backend, scale=0.3)
    expected = oracle(*inputs, table(mask, queries, keys), scale=0.3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@each_here
@each_mask
def test_packed_documents_are_read_as_if_alone(backend, mask):
    inputs = draw(50, 50, heads=(2, 1))
    documents = documents_of([30, 1, 19], [5, 40, 5])
    got = attend(
        *inputs, mask, where(*(each.shape[2] for each in inputs[:2]), documents), backend=backend
    )
    expected = oracle(*inputs, table(mask, 50, 50, documents))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    alone = [each[1:, :, 5:45] for each in inputs]
    torch.testing.assert_close(
        got[1:, :, 5:45], attend(*alone, mask, backend=backend), rtol=0, atol=1e-12
    )


@each_here
@each_mask
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_those_of_the_definition(backend, mask, packed):
    inputs = [each.requires_grad_() for each in draw(40, 40)]
    documents = documents_of([25, 15], [3, 37]) if packed else None
    slope = torch.randn(2, 4, 40, 6, dtype=torch.float64)
    got = attend(
        *inputs, mask, where(*(each.shape[2] for each in inputs[:2]), documents), backend=backend
    )
    expected = oracle(*inputs, table(mask, 40, 40, documents))
    for one, other in zip(
        torch.autograd.grad(got, inputs, slope),
        torch.autograd.grad(expected, inputs, slope),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@each_here
@pytest.mark.parametrize("sinks", [0, 2])
@pytest.mark.parametrize("window", [1, 2, 17, 33])
def test_windows_are_exact_at_their_edges(backend, window, sinks):
    for length in sorted({window - 1, window, window + 1, 3 * window, 3 * window + 1} - {0}):
        inputs, mask = draw(length, length, (1, 1), (4, 4), batch=1), Mask(window, sinks)
        got = attend(*inputs, mask, backend=backend)
        expected = oracle(*inputs, table(mask, length, length))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12, msg=f"length {length}")


@each_here
@pytest.mark.parametrize("queries", [1, 5, 30])
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("extra", [0, 4])
def test_a_run_of_latest_keys_is_enough(backend, queries, sinks, extra):
    """What a windowed cache hands over: sinks, then the latest positions, and where they begin."""
    total, mask = 60, Mask(9, sinks)
    inputs = draw(queries, total, (2, 2))
    whole = attend(*inputs, mask, backend=backend)
    first = max(total - queries - 8 - extra, sinks)
    cut = [torch.cat((each[:, :, :sinks], each[:, :, first:]), 2) for each in inputs[1:]]
    latest = Geometry(queries, cut[0].shape[2], sinks, first)
    got = attend(inputs[0], *cut, mask, latest, backend=backend)
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        got, oracle(*inputs, table(mask, queries, total)), rtol=0, atol=1e-12
    )


@each_here
def test_float32_and_bfloat16_stay_near(backend):
    for dtype, tolerance in [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)]:
        inputs = [each.requires_grad_() for each in draw(40, 40, dtype=dtype)]
        got = attend(*inputs, Mask(11, 2), backend=backend)
        assert got.dtype == dtype
        expected = oracle(*inputs, table(Mask(11, 2), 40, 40))
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
        got.sum().backward()
        assert all(each.grad is not None and each.grad.dtype == dtype for each in inputs)


@each_here
@pytest.mark.parametrize("packed", [False, True])
def test_dropout_leaves_the_mean_and_its_gradient(backend, packed):
    inputs = [each.requires_grad_() for each in draw(20, 20, (1, 1), (4, 4), batch=1)]
    rows = 400  # each drops other weights
    documents = documents_of([12, 8]) if packed else None
    exact = attend(*inputs, Mask(9, 1), where(20, 20, documents), backend=backend)
    many = attend(
        *(each.expand(rows, -1, -1, -1) for each in inputs), Mask(9, 1), dropout=0.5,
        geometry=where(20, 20, None if documents is None else documents.expand(rows, -1)),
        backend=backend,
    )  # fmt: skip
    assert not torch.equal(many[0], many[1])
    mean = many.mean(0)
    assert (mean - exact).abs().mean() < 0.1 * exact.abs().mean()
    got = torch.autograd.grad(mean.sum(), inputs[2])[0]
    expected = torch.autograd.grad(exact.sum(), inputs[2])[0]
    assert (got - expected).abs().mean() < 0.1 * expected.abs().mean()


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
