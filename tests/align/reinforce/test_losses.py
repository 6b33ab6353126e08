"""The losses against closed forms, in float64."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import math

import pytest
import torch

from coterie.align.reinforce.losses import (
    AdaptiveKL,
    clipped_objective,
    entropy,
    kl_estimate,
    value_loss,
)


def policy(seed, *shape):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_()


def test_on_policy_the_clipped_objective_is_the_policy_gradient():
    logits, tokens = policy(0, 9, 5), torch.arange(9) % 5
    advantages = policy(1, 9).detach()
    logs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    (expected,) = torch.autograd.grad(-(advantages * logs).sum(), logits, retain_graph=True)
    found = clipped_objective(logs, logs.detach(), advantages, 0.2, 0.2)
    (gradient,) = torch.autograd.grad(found.loss.sum(), logits)
    torch.testing.assert_close(gradient, expected)
    assert (found.ratio == 1).all()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "low", "high"),
    [
        (1.5, 1.0, -1.3, 0.0, 0, 1),  # beyond the range: no more to gain
        (1.5, -1.0, 1.5, 1.5, 0, 0),  # likelier though worse: pulled back
        (0.5, 1.0, -0.5, -0.5, 0, 0),
        (0.5, -1.0, 0.9, 0.0, 1, 0),
        (1.2, 2.0, -2.4, -2.4, 0, 0),
    ],
)
def test_the_range_is_unequal_and_takes_the_gradient_away_where_it_binds(
    ratio, advantage, loss, slope, low, high
):
    new = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    found = clipped_objective(new, torch.zeros(1), torch.tensor([advantage]), 0.1, 0.3)
    found.loss.sum().backward()
    assert found.loss.item() == pytest.approx(loss)
    assert float(new.grad) == pytest.approx(slope)
    assert (float(found.low), float(found.high)) == (low, high)


def test_values_that_leave_their_old_ones_by_too_much_gain_nothing():
    values = torch.tensor([3.0, 0.1, -2.0], dtype=torch.float64, requires_grad=True)
    old, returns = torch.zeros(3), torch.tensor([4.0, 4.0, 0.0], dtype=torch.float64)
    losses = value_loss(values, old, returns, 0.5)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([(0.5 - 4) ** 2 / 2, 3.9**2 / 2, 2.0])
    assert values.grad.tolist() == pytest.approx([0.0, 0.1 - 4, -2.0])
    assert value_loss(values, old, returns, None).tolist() == pytest.approx([0.5, 3.9**2 / 2, 2.0])


def test_kl_estimators_have_the_bias_and_the_variance_that_they_are_known_for():
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(50, generator=generator, dtype=torch.float64).log_softmax(0)
    reference = (new + 0.3 * torch.randn(50, generator=generator, dtype=torch.float64)).log_softmax(
        0
    )
    p = new.exp()
    exact = float((p * (new - reference)).sum())
    means, deviations = {}, {}
    for estimator in ("k1", "k2", "k3"):
        values = kl_estimate(new, reference, estimator)
        means[estimator] = float((p * values).sum())  # over all tokens, not drawn
        deviations[estimator] = float((p * (values - means[estimator]).square()).sum().sqrt())
        assert estimator == "k1" or (values >= 0).all()
    assert means["k1"] == pytest.approx(exact)
    assert means["k3"] == pytest.approx(exact)
    assert means["k2"] != pytest.approx(exact, rel=1e-3)
    assert max(deviations["k2"], deviations["k3"]) < deviations["k1"] / 2


def test_the_coefficient_follows_the_kl_towards_its_target():
    moving = AdaptiveKL(0.1, target=0.05, rate=0.5)
    moving.observe(10.0)
    assert moving.coefficient == pytest.approx(0.1 * 1.1)  # at most a fifth off counts
    moving.observe(0.045)
    assert moving.coefficient == pytest.approx(0.11 * 0.95)
    fixed = AdaptiveKL(0.1, target=None, rate=0.5)
    fixed.observe(10.0)
    assert fixed.coefficient == 0.1


def test_entropy_of_uniform_and_of_certain():
    logits = torch.tensor([[0.0, 0, 0, 0], [0, 90, 0, 0]], dtype=torch.float64)
    assert entropy(logits).tolist() == pytest.approx([math.log(4), 0.0], abs=1e-7)
