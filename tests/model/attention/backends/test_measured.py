"""Measuring finds the fastest able back end once for each situation."""

from __future__ import annotations

import itertools

import pytest
import torch

from coterie.model.attention import backends
from coterie.model.attention.backends import (
    DenseBackend,
    MeasuredBackend,
    blocked,
    measured,
)
from coterie.model.attention.backends.measured import MeasuredFunction
from coterie.model.attention.mask import Mask
from coterie.model.attention.products import attend


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


# --- by measurement -------------------------------------------------------------------------------


class Pretended:
    """A back end that takes as long as it is told."""

    def __init__(self, clock, seconds, refusal=None, scores=0):
        self.clock, self.duration, self.refusal = clock, seconds, refusal
        self.held, self.calls = scores, 0

    def refuses(self, call):
        return self.refusal

    def scores(self, call):
        return self.held

    def __call__(self, call):
        self.calls += 1
        self.clock[0] += self.duration
        return DenseBackend().build()(call)


def test_the_fastest_able_one_is_found_once_for_each_situation(monkeypatch):
    clock = [0.0]
    ways = {
        "slow": Pretended(clock, 3.0),
        "fast": Pretended(clock, 2.0),
        "unable": Pretended(clock, 1.0, refusal="no"),
        "huge": Pretended(clock, 1.0, scores=measured._MOST_SCORES + 1),
    }
    function = MeasuredFunction(ways, clock=lambda: clock[0])
    monkeypatch.setattr(MeasuredBackend, "build", lambda self: function)
    query, keys, values = draw(20, 20)
    state = torch.get_rng_state()
    attend(query, keys, values, Mask(5), backend=MeasuredBackend())
    assert torch.equal(torch.get_rng_state(), state), "measuring draws no chance"
    (choice,) = function.chosen.values()
    assert choice.kind == "fast"
    assert choice.seconds == {"slow": 3.0, "fast": 2.0}
    tried = ways["slow"].calls
    attend(query, keys, values, Mask(5), backend=MeasuredBackend())
    attend(*draw(30, 30), Mask(5), backend=MeasuredBackend())  # 20 and 30 round up to 32
    assert ways["slow"].calls == tried, "known situations are not measured again"
    assert ways["unable"].calls == ways["huge"].calls == 0
    attend(
        query.requires_grad_(), keys, values, Mask(5), backend=MeasuredBackend()
    ).sum().backward()
    attend(query, keys, values, Mask(6), dropout=0.1, backend=MeasuredBackend())
    assert len(function.chosen) == 3
    assert query.grad is not None


def test_measuring_for_real_gives_the_definition():
    backend = MeasuredBackend()
    for mask in (Mask(), Mask(9, 2)):
        inputs = draw(31, 31)
        with torch.inference_mode():
            got = attend(*inputs, mask, backend=backend)
        torch.testing.assert_close(got, oracle(*inputs, table(mask, 31, 31)), rtol=0, atol=1e-12)
    tried = [choice.seconds for choice in backend.build().chosen.values()]
    assert {"sdpa", "dense", "blocked", "flex"} <= set(tried[0])
