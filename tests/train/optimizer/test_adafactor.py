"""Adafactor against the paper in float64, against transformers, and against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from coterie.train.optimizer import Adafactor, RoleParameter


def draw(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_parameters(**tensors: torch.Tensor) -> list[RoleParameter]:
    roles = {"matrix": "matrix", "pack": "matrix", "bias": "bias", "packed_bias": "bias"}
    return [RoleParameter(n, roles[n], nn.Parameter(t.clone())) for n, t in tensors.items()]


def paper(start: torch.Tensor, gradients: list[torch.Tensor], rate: float) -> torch.Tensor:
    """Algorithms 4 and 5 of arXiv:1804.04235 for one matrix or vector, in float64."""
    x = start.double()
    rows = columns = variance = torch.zeros(())
    for t, gradient in enumerate(gradients, start=1):
        g, beta = gradient.double(), 1 - t**-0.8
        if x.ndim == 2:
            rows = beta * rows + (1 - beta) * (g**2).sum(1)
            columns = beta * columns + (1 - beta) * (g**2).sum(0)
            variance = torch.outer(rows, columns) / rows.sum()
        else:
            variance = beta * variance + (1 - beta) * g**2
        update = g / variance.sqrt()
        update = update / max(1.0, float(update.square().mean().sqrt()))
        scale = max(1e-3, float(x.square().mean().sqrt()))
        x = x - min(rate, 1 / math.sqrt(t)) * scale * update
    return x


def run(parameters, gradients: dict[str, list[torch.Tensor]], settings: Adafactor, first=0):
    """Take as many steps as there are gradients; return the optimizer."""
    optimizer = settings.build(parameters)
    for step in range(len(next(iter(gradients.values())))):
        for each in parameters:
            each.tensor.grad = gradients[each.name][step].clone()
        optimizer.step(first + step, 1.0)
    return optimizer


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-7])
def test_equals_the_paper_for_every_matrix_and_vector_however_small_its_gradient(size):
    start = {
        "matrix": draw(6, 9, size=0.1),
        "pack": draw(3, 5, 4, seed=1),
        "bias": torch.zeros(7),
        "packed_bias": draw(3, 5, seed=2),
    }
    start["pack"][1] *= 100  # experts of unequal size move each by its own
    gradients = {
        n: [size * draw(*t.shape, seed=10 + i) for i in range(5)] for n, t in start.items()
    }
    for gradient in gradients["pack"]:
        gradient[2] *= 50
    parameters = as_parameters(**start)
    run(parameters, gradients, Adafactor(learning_rate=0.05))
    ours = {each.name: each.tensor.detach() for each in parameters}

    for name in ("matrix", "bias"):
        expected = paper(start[name], gradients[name], 0.05)
        torch.testing.assert_close(ours[name].double(), expected, rtol=2e-5, atol=1e-7)
    for name in ("pack", "packed_bias"):
        for expert in range(3):
            expected = paper(start[name][expert], [g[expert] for g in gradients[name]], 0.05)
            torch.testing.assert_close(ours[name][expert].double(), expected, rtol=2e-5, atol=1e-7)


def test_equals_transformers():
    transformers = pytest.importorskip("transformers")
    start = {"matrix": draw(6, 9, size=0.1), "bias": draw(7, seed=3)}
    gradients = {n: [draw(*t.shape, seed=20 + i) for i in range(4)] for n, t in start.items()}
    parameters = as_parameters(**start)
    run(parameters, gradients, Adafactor(learning_rate=0.05))
    theirs = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    other = transformers.Adafactor(
        theirs.values(), lr=0.05, scale_parameter=True, relative_step=False, warmup_init=False
    )
    for step in range(4):
        for name, tensor in theirs.items():
            tensor.grad = gradients[name][step].clone()
        other.step()
    for each in parameters:
        torch.testing.assert_close(each.tensor, theirs[each.name], rtol=1e-5, atol=1e-7)


def test_equals_torch_bit_for_bit_where_nothing_is_packed():
    start = {"matrix": draw(6, 9, size=0.1), "bias": draw(7, seed=3)}
    gradients = {n: [draw(*t.shape, seed=20 + i) for i in range(4)] for n, t in start.items()}
    parameters = as_parameters(**start)
    run(parameters, gradients, Adafactor(learning_rate=0.05, weight_decay=0.1, decayed=("matrix",)))
    theirs = [nn.Parameter(tensor.clone()) for tensor in start.values()]
    groups = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:]}]
    other = torch.optim.Adafactor(groups, lr=0.05, eps=(1e-16, 1e-3))
    for step in range(4):
        for name, tensor in zip(start, theirs, strict=True):
            tensor.grad = gradients[name][step].clone()
        other.step()
    for each, tensor in zip(parameters, theirs, strict=True):
        assert torch.equal(each.tensor, tensor)


def test_an_expert_without_a_gradient_stays_and_harms_no_other():
    start = {"pack": draw(2, 5, 4)}
    gradient = draw(2, 5, 4, seed=4)
    gradient[1] = 0
    parameters = as_parameters(**start)
    run(parameters, {"pack": [gradient, gradient]}, Adafactor())
    moved = parameters[0].tensor.detach()
    assert torch.equal(moved[1], start["pack"][1])
    assert moved.isfinite().all()
    assert not torch.equal(moved[0], start["pack"][0])


def test_state_is_packed_as_the_parameters_are_and_goes_on_bit_for_bit():
    start = {"matrix": draw(6, 9), "pack": draw(3, 5, 4), "packed_bias": draw(3, 5)}
    gradients = {n: [draw(*t.shape, seed=30 + i) for i in range(6)] for n, t in start.items()}
    settings = Adafactor(learning_rate=0.05)
    whole = as_parameters(**start)
    end = run(whole, gradients, settings).state()
    assert {name: tuple(tensor.shape) for name, tensor in end.items()} == {
        "adafactor.matrix.step": (),
        "adafactor.matrix.row_var": (6, 1),
        "adafactor.matrix.col_var": (1, 9),
        "adafactor.pack.step": (),
        "adafactor.pack.row_var": (3, 5, 1),
        "adafactor.pack.col_var": (3, 1, 4),
        "adafactor.packed_bias.step": (),
        "adafactor.packed_bias.variance": (3, 5),
    }
    held = [tensor.nbytes for name, tensor in end.items() if not name.endswith(".step")]
    assert settings.state_bytes(whole) == sum(held)

    parts = as_parameters(**start)
    first = run(parts, {n: g[:3] for n, g in gradients.items()}, settings)
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    again = settings.build(parts)
    assert again.state() == {}
    assert again.load_state(kept) == set(kept)
    for step in range(3, 6):
        for each in parts:
            each.tensor.grad = gradients[each.name][step].clone()
        again.step(step, 1.0)
    for name, tensor in again.state().items():
        assert torch.equal(tensor, end[name]), name
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.tensor, other.tensor)


def test_state_of_another_shape_has_no_place():
    parameters = as_parameters(matrix=draw(6, 9))
    kept = run(parameters, {"matrix": [draw(6, 9)]}, Adafactor()).state()
    kept["adafactor.matrix.row_var"] = torch.zeros(5, 1)
    assert Adafactor().build(as_parameters(matrix=draw(6, 9))).load_state(kept) == set()


def test_roles_may_have_steps_of_their_own_and_the_schedule_scales_all():
    parameters = as_parameters(matrix=draw(6, 9), bias=draw(7, seed=3))
    before = [each.tensor.detach().clone() for each in parameters]
    optimizer = Adafactor(learning_rate=0.02, learning_rates={"bias": 0.01}).build(parameters)
    for each in parameters:
        each.tensor.grad = torch.ones_like(each.tensor)
    optimizer.step(0, 0.5)
    for each, old, rate in zip(parameters, before, (0.01, 0.005), strict=True):
        moved = (old - each.tensor.detach()) / old.square().mean().sqrt()
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)
        assert each.tensor.grad is not None  # the step clears it, not the optimizer


def test_a_role_that_no_decoder_has_is_refused():
    with pytest.raises(ValueError, match="did you mean “matrix”"):
        Adafactor(learning_rates={"matrx": 0.1})
