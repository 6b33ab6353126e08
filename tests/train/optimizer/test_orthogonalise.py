"""Stacked orthogonalising and Muon against torch's own and against exact singular values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coterie.train.optimizer import AdamW, Muon, RoleParameter
from coterie.train.optimizer import orthogonalise as module
from coterie.train.optimizer.orthogonalise import (
    _iterate,
    _iterate_gram,
    newton_schulz,
    orthogonalise,
    polar_express,
)


def stack(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 48), (2, 48, 12), (1, 8, 9)])
@pytest.mark.parametrize(
    ("coefficients", "low", "high"),
    [(newton_schulz(5), 0.3, 1.25), (newton_schulz(8), 0.6, 1.25), (polar_express(7), 0.98, 1.02)],
)
def test_singular_values_reach_one_and_vectors_stay(shape, coefficients, low, high):
    matrices = stack(shape).double()
    # Known singular values between 0.05 and 1: small ones must be lifted too.
    U, _, Vh = torch.linalg.svd(matrices, full_matrices=False)
    S = torch.linspace(0.05, 1.0, min(shape[1:]), dtype=torch.float64)
    result = orthogonalise(((U * S) @ Vh).float(), coefficients).double()
    values = (U.mT @ result @ Vh.mT).diagonal(dim1=-2, dim2=-1)
    assert values.min() > low
    assert values.max() < high
    torch.testing.assert_close((U * values.unsqueeze(-2)) @ Vh, result, atol=1e-3, rtol=0)


def test_bfloat16_does_not_push_singular_values_out_of_the_interval():
    matrices = stack((2, 128, 128)).bfloat16()
    settings = Muon()

    def largest(dtype: torch.dtype) -> float:
        result = orthogonalise(matrices, settings.coefficients(dtype), safety=settings.safety)
        return float(torch.linalg.svdvals(result.float()).max())

    assert largest(torch.bfloat16) < 1.2
    assert largest(torch.float32) > 1.25  # without the cushion, and on a GPU it diverges


def test_gram_iteration_equals_the_plain_one():
    X = stack((3, 16, 64))
    X = X / X.norm(dim=(1, 2), keepdim=True)
    for coefficients in (newton_schulz(5), polar_express(5)):
        torch.testing.assert_close(
            _iterate_gram(X, coefficients), _iterate(X, coefficients), atol=2e-4, rtol=0
        )


def test_each_matrix_of_a_stack_is_treated_alone():
    matrices = stack((4, 10, 6))
    matrices[2] *= 1e4
    together = orthogonalise(matrices, polar_express(5))
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalise(matrix[None], polar_express(5))[0], result)


def test_pieces_that_fit_the_cache_give_what_the_whole_stack_gives(monkeypatch):
    matrices = stack((5, 10, 6))
    whole = orthogonalise(matrices, polar_express(5))
    monkeypatch.setattr(module, "_CACHED_NUMBERS", 2 * 10 * 6)
    torch.testing.assert_close(orthogonalise(matrices, polar_express(5)), whole)


def test_zeros_stay_zeros():
    assert not orthogonalise(torch.zeros(2, 4, 8), polar_express(5)).any()


@pytest.mark.parametrize("shape", [(24, 24), (8, 32), (32, 8)])
def test_muon_equals_torch_on_one_matrix(shape, monkeypatch):
    # torch iterates in bfloat16; in float32 both must take the same steps.
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.float().clone())
    ours, theirs = nn.Parameter(stack(shape, 1)), nn.Parameter(stack(shape, 1))
    settings = Muon(weight_decay=0.1, polynomial="newton_schulz", safety=1.0)
    optimizer = settings.build([RoleParameter("w", "matrix", ours)])
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95)
    for step in range(4):
        ours.grad = stack(shape, 10 + step)
        theirs.grad = ours.grad.clone()
        optimizer.step(step, 1.0)
        reference.step()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_packed_experts_are_orthogonalised_one_by_one():
    packed = nn.Parameter(torch.zeros(3, 6, 10))
    packed.grad = stack((3, 6, 10))
    singles = [nn.Parameter(torch.zeros(6, 10)) for _ in range(3)]
    for single, gradient in zip(singles, packed.grad, strict=True):
        single.grad = gradient.clone()
    Muon().build([RoleParameter("experts", "matrix", packed)]).step(0, 1.0)
    for single in singles:
        Muon().build([RoleParameter("one", "matrix", single)]).step(0, 1.0)
    torch.testing.assert_close(packed.detach(), torch.stack([s.detach() for s in singles]))


def mixed_parameters(seed: int = 0) -> list[RoleParameter]:
    shapes = {"embedding": (11, 4), "matrix": (4, 8), "head": (11, 4), "norm": (4,), "bias": (8,)}
    return [
        RoleParameter(role, role, nn.Parameter(stack(shape, seed + index)))
        for index, (role, shape) in enumerate(shapes.items())
    ]


@pytest.mark.parametrize("settings", [AdamW(), Muon()])
def test_state_by_name_restores_the_optimizer_bit_for_bit(settings):
    def move(optimizer, parameters, steps):
        for step in steps:
            for index, parameter in enumerate(parameters):
                parameter.tensor.grad = stack(parameter.tensor.shape, 100 * step + index)
            optimizer.step(step, 0.5)

    whole = mixed_parameters()
    optimizer = settings.build(whole)
    move(optimizer, whole, range(6))

    first = mixed_parameters()
    before = settings.build(first)
    move(before, first, range(3))
    saved = {name: tensor.clone() for name, tensor in before.state().items()}
    second = [each._replace(tensor=nn.Parameter(each.tensor.detach().clone())) for each in first]
    after = settings.build(second[::-1])  # the order of parameters must not matter
    assert after.load_state(saved) == set(saved)
    move(after, second, range(3, 6))
    for expected, got in zip(whole, second, strict=True):
        assert torch.equal(expected.tensor, got.tensor)


def test_rates_and_decay_follow_roles():
    parameters = mixed_parameters()
    before = {p.name: p.tensor.detach().clone() for p in parameters}
    settings = AdamW(
        learning_rate=0.1, weight_decay=0.5, decayed=("matrix",), learning_rates={"norm": 0.2}
    )
    for parameter in parameters:
        parameter.tensor.grad = torch.zeros_like(parameter.tensor)
    settings.build(parameters).step(0, 1.0)
    after = {p.name: p.tensor.detach() for p in parameters}
    torch.testing.assert_close(after["matrix"], before["matrix"] * (1 - 0.1 * 0.5))
    assert torch.equal(after["embedding"], before["embedding"])
    for parameter in parameters:
        parameter.tensor.grad = torch.ones_like(parameter.tensor)
    settings.build(parameters).step(0, 0.5)
    torch.testing.assert_close(after["norm"], before["norm"] - 0.1, atol=1e-5, rtol=0)
    torch.testing.assert_close(after["bias"], before["bias"] - 0.05, atol=1e-5, rtol=0)


def test_the_schedule_scales_what_muon_does_to_matrices_and_to_the_others():
    moved = []
    for multiplier in (1.0, 0.25):
        parameters = mixed_parameters()
        before = [p.tensor.detach().clone() for p in parameters]
        for parameter in parameters:
            parameter.tensor.grad = stack(parameter.tensor.shape, 50)
        Muon(weight_decay=0.1).build(parameters).step(0, multiplier)
        pairs = zip(parameters, before, strict=True)
        moved.append([p.tensor.detach() - was for p, was in pairs])
    for whole, quarter in zip(*moved, strict=True):
        torch.testing.assert_close(quarter, whole / 4, rtol=1e-3, atol=1e-6)
        assert whole.abs().max() > 1e-3


def test_momentum_of_a_step_is_that_of_the_warmup():
    parameter = RoleParameter("w", "matrix", nn.Parameter(torch.zeros(6, 6)))
    parameter.tensor.grad = torch.eye(6)
    optimizer = Muon(momentum=0.9, momentum_start=0.5, momentum_warmup=4).build([parameter])
    for step, momentum in enumerate((0.5, 0.6, 0.7, 0.8, 0.9, 0.9)):
        before = optimizer.state()["muon.w.momentum"].clone()
        optimizer.step(step, 1.0)
        expected = before * momentum + torch.eye(6) * (1 - momentum)
        torch.testing.assert_close(optimizer.state()["muon.w.momentum"], expected)


def test_an_update_every_third_step_is_three_times_as_large_and_forgets_no_gradient():
    ours, plain = (RoleParameter("w", "matrix", nn.Parameter(torch.zeros(6, 6))) for _ in range(2))
    rare = Muon(every=3).build([ours])
    each = Muon().build([plain])
    for step in range(6):
        ours.tensor.grad = stack((6, 6), step)
        plain.tensor.grad = ours.tensor.grad.clone()
        before = [p.tensor.detach().clone() for p in (ours, plain)]
        rare.step(step, 0.5)
        each.step(step, 0.5)
        moved = [p.tensor.detach() - was for p, was in zip((ours, plain), before, strict=True)]
        # The momentum is that of an update with every step, so the direction is the same.
        expected = 3 * moved[1] if step in (2, 5) else torch.zeros(6, 6)
        torch.testing.assert_close(moved[0], expected, rtol=1e-4, atol=1e-6)
    assert Muon(every=3).flops([ours]) == Muon().flops([ours]) / 3


def test_an_unknown_role_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"embeding.*embedding"):
        AdamW(learning_rates={"embeding": 0.1})


def test_momentum_rises_over_its_warmup_and_then_stays():
    settings = Muon(momentum=0.95, momentum_start=0.85, momentum_warmup=100)
    assert [settings.momentum_at(step) for step in (0, 50, 100, 900)] == pytest.approx(
        [0.85, 0.90, 0.95, 0.95]
    )
    assert Muon(momentum=0.9).momentum_at(0) == 0.9
