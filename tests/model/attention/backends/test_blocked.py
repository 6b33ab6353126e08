"""Tiles: what is skipped, what is kept for the backward pass, one compiled graph."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from coterie.model.attention import backends, products
from coterie.model.attention.backends import (
    BlockedBackend,
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
        inputs = [each.requires_grad_() for each in draw(300, 300)]
        attend(*inputs, Mask(40), backend=BlockedBackend())
    assert sum(saved) == sum(each.numel() for each in inputs)


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
