"""The automatic choice follows sizes."""

from __future__ import annotations

import pytest
import torch

from coterie.model.attention import backends, products
from coterie.model.attention.backends import (
    AutoBackend,
    blocked,
)
from coterie.model.attention.mask import Mask
from coterie.model.attention.sparse import BlockPattern, StridedPattern
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


def where(queries, keys, documents=None):
    starts = None if documents is None else document_starts(documents)
    return Geometry(queries, keys, starts=starts)


# --- the automatic choice and compilation ---------------------------------------------------------


@pytest.mark.parametrize(
    ("queries", "keys", "mask", "expected"),
    [
        (1, 500, Mask(), "sdpa"),
        (1, 500, Mask(20), "sdpa"),
        (20, 20, Mask(), "dense"),
        (200, 200, Mask(), "sdpa"),
        (200, 200, Mask(300), "sdpa"),
        (200, 200, Mask(20), "blocked"),
        (200, 200, Mask(190), "blocked"),
        (200, 200, Mask(sparse=StridedPattern(stride=3)), "blocked"),
        (50, 200, Mask(), "blocked"),
        (400, 400, Mask(sparse=BlockPattern(size=16)), "blocked"),
    ],
)
def test_the_automatic_choice_follows_sizes(queries, keys, mask, expected, monkeypatch):
    taken = []

    def take(kind, call):
        taken.append(kind)
        return call.query

    for kind, name in (("dense", "DenseFunction"), ("sdpa", "SDPAFunction")):
        function = getattr(getattr(backends, kind), name)
        monkeypatch.setattr(function, "__call__", lambda self, call, kind=kind: take(kind, call))
    monkeypatch.setattr(
        blocked.BlockedFunction, "compute", lambda self, plan: take("blocked", plan.call)
    )
    call = products.prepared(*draw(queries, keys), mask, where(queries, keys))
    AutoBackend().build()(call)
    assert taken == [expected]
