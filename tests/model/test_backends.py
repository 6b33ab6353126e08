"""Back ends against the definition in float64: every one that can, with every mask and size."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from coterie.foundation.errors import MissingExtraError, UserError
from coterie.foundation.settings import members
from coterie.model.attention import backends, products
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
    measured,
)
from coterie.model.attention.backends.flash import FlashFunction
from coterie.model.attention.backends.flex import definition
from coterie.model.attention.backends.measured import MeasuredFunction
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
        (200, 200, Mask(190), "sdpa"),
        (200, 200, Mask(sparse=StridedPattern(stride=3)), "sdpa"),
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


def test_tiles_compile_into_one_graph():
    # In a process of its own: the shape checks of the tests would break the graph.
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=300)
