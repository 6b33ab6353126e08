"""Masks against their definitions, position by position, and what is derived from them."""

from __future__ import annotations

import functools
import itertools
import time

import pytest
import torch

from coterie.model import CacheSpec
from coterie.model.attention.mask_settings import Mask, MaskSettings
from coterie.model.attention.sparse import BlockPattern, DilatedPattern, StridedPattern

LENGTH = 70
BLOCKS = BlockPattern(size=4, local=1, first=2, chosen=3, seed=5)


def strided(i, j):
    return i - j < 7 or (i - j) % 7 == 0


def dilated(i, j):
    return (i - j) % 3 == 0


def anything(i, j):
    return True


def drawn(i, j):
    """Neighbours and first blocks by definition; what was drawn is read from the pattern."""
    own, other = i // 4, j // 4
    return own - other <= 1 or other < 2 or of_blocks(own, other)


@functools.cache
def of_blocks(own, other):
    return bool(BLOCKS.allows(torch.tensor(own * 4), torch.tensor(other * 4)))


PATTERNS = {
    "all": (None, anything),
    "strided": (StridedPattern(stride=7), strided),
    "dilated": (DilatedPattern(stride=3), dilated),
    "blocks": (BLOCKS, drawn),
}
every_mask = pytest.mark.parametrize(
    ("name", "window", "sinks"), [*itertools.product(PATTERNS, [None, 1, 9, 40, 200], [0, 1, 5])]
)


def definition(name, window, sinks):
    """Return which of the first positions each sees, spelled out."""
    allows = PATTERNS[name][1]
    table = [
        [
            j <= i and (j < sinks or ((window is None or i - j < window) and allows(i, j)))
            for j in range(LENGTH)
        ]
        for i in range(LENGTH)
    ]
    return torch.tensor(table)


@every_mask
def test_visible_is_the_definition(name, window, sinks):
    mask, at = Mask(window, sinks, PATTERNS[name][0]), torch.arange(LENGTH)
    table = definition(name, window, sinks)
    assert torch.equal(mask.visible(at, at), table)
    # Any part of the text is seen the same, so reading piece by piece changes nothing.
    assert torch.equal(mask.visible(at[30:33], at[:33]), table[30:33, :33])
    assert table.diagonal().all(), "every position sees itself"
    # Counting and the ranges that tiles are made of follow from it.
    assert mask.mean_visible(LENGTH) == pytest.approx(float(table.sum()) / LENGTH, abs=1e-12)
    for start, stop in [(0, 3), (12, 16), (29, 43), (66, 70)]:
        inside = torch.zeros(LENGTH, dtype=torch.bool)
        for low, high in mask.ranges(start, stop):
            inside[low:high] = True
        assert not (table[start:stop].any(0) & ~inside).any()
    # What cannot matter among few neighbouring positions is dropped, and nothing changes.
    short = mask.within(12)
    part = at[20:32]
    assert torch.equal(short.visible(part, part), mask.visible(part, part))
    assert torch.equal(short.visible(at[:12], at[:12]), table[:12, :12])


def test_a_window_is_self_and_the_ones_before():
    at = torch.arange(4)
    assert Mask(2).visible(at, at).int().tolist() == [
        [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1],
    ]  # fmt: skip
    assert Mask(1, 1).visible(at[3:], at).int().tolist() == [[1, 0, 0, 1]]
    assert Mask().visible(at[2:3], at[:3]).int().tolist() == [[1, 1, 1]]


def test_drawn_blocks_are_as_many_as_asked_for_and_move_with_the_seed():
    pattern = BlockPattern(size=2, local=1, first=1, chosen=3, seed=0)
    at = torch.arange(0, 100, 2)  # the first position of each of 50 blocks
    seen = pattern.allows(at[:, None], at[None, :]) & (at[None, :] <= at[:, None])
    for own in range(50):
        between = max(own - 2, 0)  # neither near nor first
        others = int(seen[own, 1 : max(own - 1, 1)].sum())
        assert others == min(3, between), own
    other = BlockPattern(size=2, local=1, first=1, chosen=3, seed=1)
    assert not torch.equal(seen, other.allows(at[:, None], at[None, :]) & (at[None] <= at[:, None]))
    # A long text draws from everywhere: near, far and between.
    distances = [own - int(o) for own in range(30, 50) for o in seen[own].nonzero().flatten()]
    assert {0, 1} < set(distances)
    assert max(d for d in distances if d < 30) > 20


def test_what_a_cache_keeps():
    assert Mask().cache_spec() == CacheSpec()
    assert Mask(8, 2).cache_spec() == CacheSpec(8, 2)
    assert Mask(8, 2, DilatedPattern()).cache_spec() == CacheSpec(8, 2)
    assert Mask(None, 2, StridedPattern()).cache_spec() == CacheSpec(), (
        "a pattern may reach anywhere"
    )


def test_counting_a_long_text_is_quick_and_exact():
    begin = time.perf_counter()
    for pattern, _ in PATTERNS.values():
        Mask(4096, 4, pattern).mean_visible(1 << 17)
        Mask(None, 0, pattern).mean_visible(1 << 17)
    assert time.perf_counter() - begin < 5  # all pairs, one by one, would take minutes
    window, context = 4096, 1 << 17
    full = (window * (window + 1) / 2 + (context - window) * window) / context
    assert Mask(window).mean_visible(context) == pytest.approx(full, rel=1e-14)


def test_sinks_without_anything_to_escape_are_refused():
    with pytest.raises(ValueError, match="sinks=4 has no effect"):
        MaskSettings(sinks=4)
    assert MaskSettings(sinks=4, window=8).mask() == Mask(8, 4)
    settings = MaskSettings.model_validate(
        {"sparse": {"kind": "strided", "stride": 9}, "window": 5}
    )
    assert settings.mask() == Mask(5, 0, StridedPattern(stride=9))
    with pytest.raises(ValueError, match="did you mean “strided”"):
        MaskSettings.model_validate({"sparse": "stride"})
    with pytest.raises(ValueError, match="flash-attn knows windows"):
        MaskSettings.model_validate({"sinks": 4, "window": 8, "backend": "flash"})
