"""The kernels agree in outputs and gradients, whatever the selection looks like."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coterie.foundation.settings import kind_of, members
from coterie.model.experts import Kernel, MixtureOfExperts, dispatch, layer
from coterie.model.experts.kernel import grouped, interface

WIDTH = 8


OTHERS = sorted({kind_of(member) for member in members(Kernel)} - {"loop"})


PACKS = [
    {"mlp": {"kind": "gated", "width": 12, "bias": True}, "count": 3},
    {"mlp": "null", "count": 1},
    {"mlp": {"kind": "deep", "width": 4}, "count": 2},
]


NONE = 6  # the number of experts stands for no expert


SELECTIONS = {
    "usual": [[0, 4], [5, 1], [3, 2], [2, 0], [1, 5]] * 5,
    "empty experts": [[0, 5], [5, 0], [0, 5]] * 8,
    "null alone": [[3, NONE]] * 4,
    "drops": [[0, NONE], [NONE, NONE], [NONE, 5], [3, 1], [4, NONE]] * 5,
    "nobody": [[NONE, NONE]] * 3,
    "one token": [[5, 0]],
    "one token with one expert": [[2, NONE]],
    "no token": [],
}


def build(compute, packs=PACKS):
    settings = MixtureOfExperts.model_validate(
        {"experts": packs, "experts_per_token": 2, "kernel": compute}
    )
    part = settings.build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return part


def mix(part, x, indices, gates):
    packs = list(part.experts)
    kernel = part.kernel.chosen(packs, x, indices, part.dispatcher)
    return kernel.mix(packs, x, indices, gates, part.dispatcher, partial=True)


def run(compute, selection, packs=PACKS):
    part = build(compute, packs)
    indices = torch.tensor(selection, dtype=torch.int64).reshape(-1, 2)
    generator = torch.Generator().manual_seed(3)
    x, gates = (
        torch.randn(len(indices), size, generator=generator, dtype=torch.float64)
        for size in (WIDTH, 2)
    )
    gates.masked_fill_(indices == NONE, 0.0)
    leaves = [x.requires_grad_(), gates.requires_grad_(), *part.experts.parameters()]
    out = mix(part, x, indices, gates)
    wanted = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(out, leaves, wanted, allow_unused=True)
    gradients = [torch.zeros_like(leaf) if each is None else each
                 for leaf, each in zip(leaves, gradients, strict=True)]  # fmt: skip
    gradients[1] = gradients[1].masked_fill(indices == NONE, 0.0)  # of no consequence to anybody
    return out, gradients


def naive(selection):
    part = build("loop")
    indices = torch.tensor(selection, dtype=torch.int64).reshape(-1, 2)
    generator = torch.Generator().manual_seed(3)
    x, gates = (
        torch.randn(len(indices), size, generator=generator, dtype=torch.float64)
        for size in (WIDTH, 2)
    )
    firsts = (0, 3, 4)
    rows = []
    for token, row in enumerate(selection):
        total = torch.zeros(WIDTH, dtype=torch.float64)
        for place, expert in enumerate(row):
            if expert == NONE:
                continue
            number = max(n for n in range(3) if firsts[n] <= expert)
            pack, index = part.experts[number], expert - firsts[number]
            own = tuple(None if w is None else w[index] for w in pack.weights())
            answer = pack.run(x[token : token + 1], own, torch.nn.functional.linear)[0]
            total = total + gates[token, place] * answer
        rows.append(total)
    return torch.stack(rows) if rows else x


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_loop_equals_the_definition(name):
    out, _ = run("loop", SELECTIONS[name])
    torch.testing.assert_close(out, naive(SELECTIONS[name]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("compute", OTHERS)
@pytest.mark.parametrize("name", SELECTIONS)
def test_all_computations_agree_in_outputs_and_gradients(name, compute):
    expected, expected_gradients = run("loop", SELECTIONS[name])
    out, gradients = run(compute, SELECTIONS[name])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("compute", ["loop", *OTHERS])
@pytest.mark.parametrize("selection", [[[0, 1]], [[5, NONE], [4, NONE]], [[3, NONE], [3, NONE]]])
def test_idle_packs_get_gradients_of_zeros(compute, selection):
    part = build(compute, PACKS)
    x = torch.randn(len(selection), WIDTH, dtype=torch.float64, requires_grad=True)
    gates = torch.ones(len(selection), 2, dtype=torch.float64)
    mix(part, x, torch.tensor(selection), gates).sum().backward()
    assert all(each.grad is not None for each in part.experts.parameters())


@pytest.mark.parametrize("compute", ["grouped", "padded", "gather", "measured"])
def test_computations_agree_without_gradients_in_float32(compute):
    def answer(kind):
        part = build(kind).float()
        torch.manual_seed(0)
        with torch.no_grad():
            return part(torch.randn(2, 20, WIDTH))[0]

    torch.testing.assert_close(answer(compute), answer("loop"), rtol=1e-5, atol=1e-5)


def test_compilers_leave_the_experts_outside_their_graph(monkeypatch):
    """What runs there depends on the selection; `test_contract` compiles every kernel."""
    assert layer._mix_uncompiled.__wrapped__ is layer._mix
    part, calls = build("loop"), []
    monkeypatch.setattr(layer, "_mix_uncompiled", lambda *_: calls.append(1) or layer._mix(*_))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    part(torch.randn(1, 3, WIDTH, dtype=torch.float64))
    assert calls == [1]


def test_gathering_has_the_same_shapes_whatever_was_selected_and_stays_inside(monkeypatch):
    part, one = build("gather"), torch.randn(1, 1, WIDTH, dtype=torch.float64)
    expected = part(one)[0]
    monkeypatch.setattr(layer, "_mix_uncompiled", lambda *_: pytest.fail("left the graph"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(part(one)[0], expected)
    part.dispatcher.local = False
    with pytest.raises(pytest.fail.Exception):
        part(one)


def test_a_grouped_product_stays_in_the_graph_where_compilers_know_it(monkeypatch):
    monkeypatch.setattr(grouped, "has_triton", lambda: False)
    part, x = build("grouped", PACKS[:1]).float(), torch.randn(4, WIDTH)
    packs, kernel = list(part.experts), part.kernel
    assert kernel.compiles(packs, x, partial=False)  # by operators of our own
    assert not kernel.compiles(packs, x, partial=True)
    with FakeTensorMode():
        on_gpu = torch.empty(4, WIDTH, dtype=torch.bfloat16, device="cuda")
    packs[0].alignment = 8
    assert kernel.compiles(packs, on_gpu, partial=False)
    assert kernel.compiles(2 * packs, on_gpu, partial=True)  # rows of no expert come last there
    packs[0].alignment = 4
    assert not kernel.compiles(packs, on_gpu, partial=False)


@pytest.fixture
def unknown_counts(monkeypatch):
    """Let no kernel know how many rows there are, as on a GPU; what nobody fills is NaN."""
    for where in (dispatch, grouped, interface):
        monkeypatch.setattr(where, "knows_counts", lambda x: False)
    monkeypatch.setattr(dispatch, "_is_host", lambda rows: False)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("compute", sorted({"loop", *OTHERS} - {"measured"}))
@pytest.mark.parametrize("selection", SELECTIONS)
def test_rows_of_no_expert_may_come_last_and_packs_get_them_all(compute, selection, request):
    expected, wanted = run("loop", SELECTIONS[selection])
    request.getfixturevalue("unknown_counts")
    found, gradients = run(compute, SELECTIONS[selection])
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other)
