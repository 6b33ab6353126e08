"""Tiles: what is skipped, what is kept for the backward pass, one compiled graph."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from coterie.model.attention import backends, products
from coterie.model.attention.backends import (
    BlockedBackend,
    DenseBackend,
    blocked,
)
from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend
from coterie.model.attention.sparse import BlockPattern
from coterie.model.geometry import Geometry


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


def test_dropped_weights_of_tiles_have_the_gradient_of_what_was_computed(monkeypatch):
    monkeypatch.setattr(blocked, "_TILE", 4)
    inputs = [each.requires_grad_() for each in draw(9, 9, (2, 1), (2, 1), batch=1)]

    def seeded(*each):
        torch.manual_seed(3)
        return attend(*each, Mask(4, 1), dropout=0.4, backend=BlockedBackend())

    assert torch.autograd.gradcheck(seeded, inputs)


def test_masks_of_tiles_are_shared_by_calls_and_none_by_mistake():
    """The same sizes with other masks, places and types; each again from memory."""
    one = draw(70, 70, (2, 2), (4, 4), batch=1)
    masks = (Mask(9), Mask(9, 2), Mask(10), Mask(sparse=BlockPattern(size=16)))
    for _ in range(2):
        for mask in masks:
            for queries in (70, 37):
                inputs = (one[0][:, :, -queries:], *one[1:])
                got = attend(*inputs, mask, backend=BlockedBackend())
                expected = attend(*inputs, mask, backend=DenseBackend())
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    blocked._remembered.cache_clear()
    attend(*one, Mask(9), backend=BlockedBackend())
    assert blocked._remembered.cache_info().currsize == 3, "the first, the others, the last"


def test_the_fused_kernel_serves_unless_weights_are_dropped(monkeypatch):
    def refuse(*each):
        raise AssertionError("plain products were asked")

    inputs = [each.requires_grad_() for each in draw(40, 40, (4, 2), (4, 6))]
    monkeypatch.setattr(blocked, "_plain", refuse)
    attend(*inputs, Mask(9, 2), backend=BlockedBackend()).sum().backward()
    with pytest.raises(AssertionError, match="plain products"):
        attend(*inputs, Mask(9, 2), dropout=0.1, backend=BlockedBackend())


def test_plain_tiles_have_the_gradients_of_fused_ones(monkeypatch):
    starts = (torch.arange(50) // 20 * 20).expand(2, 50)
    for where in (Geometry(50, 50), Geometry(50, 50, starts=starts)):
        found = []
        for device in ("cpu", "another"):
            inputs = [each.requires_grad_() for each in draw(50, 50)]
            plan = blocked.Plan(products.prepared(*inputs, Mask(11, 2), where))
            if device == "another":
                plan.fused, plan.groups = False, 2
            out = blocked.BlockedFunction().compute(plan)
            found.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def pairs(mask, length, documents=None):
    """Return how many pairs the tiles of a call look at."""
    one = draw(length, length, (1, 1), (1, 1), batch=1)
    call = products.prepared(*one, mask, Geometry(length, length, starts=documents))
    plan = blocked.BlockedFunction().plan(call)
    return plan.share * length * length


def test_tiles_skip_what_no_query_sees():
    # A window, with sinks or without: twice the text costs twice the work.
    for mask in (Mask(50), Mask(50, 4)):
        costs = [pairs(mask, length) for length in (1000, 2000, 4000)]
        assert costs[1] - costs[0] == pytest.approx((costs[2] - costs[1]) / 2, rel=0.05)
        assert costs[2] <= 4000 * (50 + 16 + 4)
    sparse = BlockPattern(size=16, local=1, first=1, chosen=2)
    assert pairs(Mask(sparse=sparse), 1600) <= 1600 * 16 * 5
    assert pairs(Mask(), 1600) <= 1600 * (1600 + 16) / 2, "the future is skipped as well"
    starts = (torch.arange(1600) // 100 * 100)[None]
    assert pairs(Mask(), 1600, starts) <= 1600 * (2 * 100)


def test_tiles_keep_no_scores_for_the_backward_pass():
    saved = []

    def count(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        inputs = [each.requires_grad_() for each in draw(300, 300, channels=(8, 8))]
        out = attend(*inputs, Mask(40), backend=BlockedBackend())
    sums = out[..., 0].numel()  # of each row's softmax
    assert sum(saved) == sum(each.numel() for each in (*inputs, out)) + sums


COMPILED = """
import torch
from coterie.model.attention.backends import BlockedBackend, blocked
from coterie.model.attention.mask import Mask
from coterie.model.geometry import Geometry, document_starts
from coterie.model.attention.products import attend

blocked._TILE = 16
backend = BlockedBackend()
inputs = [torch.randn(2, heads, 24, 4).double().requires_grad_() for heads in (4, 2, 2)]
documents = (torch.arange(24) // 15).expand(2, 24)

def run(*each):
    where = Geometry(24, 24, starts=document_starts(documents))
    packed = attend(*each, Mask(9, 2), where, backend=backend)
    return packed * attend(*each, Mask(5), backend=backend)

compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
got = torch.autograd.grad(compiled(*inputs).sum(), inputs)
expected = torch.autograd.grad(run(*inputs).sum(), inputs)
for one, other in zip(got, expected, strict=True):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
"""


@pytest.mark.exhaustive
def test_tiles_compile_into_one_graph():
    # In a process of its own: the shape checks of the tests would break the graph.
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=300)
