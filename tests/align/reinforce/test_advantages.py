"""Advantages against their definitions, in float64."""

import pytest
import torch

from coterie.align.reinforce.advantages import (
    generalised_advantages,
    group_advantages,
    leave_one_out,
    whitened,
)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_group_is_held_against_its_own_mean_and_deviation():
    rewards = drawn(5, 4) * 3 + 2
    for row, own in zip(rewards, group_advantages(rewards), strict=True):
        deviation = ((row - row.mean()) ** 2).mean().sqrt()
        torch.testing.assert_close(own, (row - row.mean()) / (deviation + 1e-4))
    plain = group_advantages(rewards, scaled=False)
    torch.testing.assert_close(plain, rewards - rewards.mean(1, keepdim=True))
    assert group_advantages(torch.ones(2, 4)).abs().max() == 0  # no spread, nothing to learn


def test_leave_one_out_is_the_mean_of_the_others():
    rewards = drawn(3, 4)
    for i in range(3):
        for k in range(4):
            others = [float(rewards[i, j]) for j in range(4) if j != k]
            expected = float(rewards[i, k]) - sum(others) / 3
            assert float(leave_one_out(rewards)[i, k]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_generalised_advantages_are_the_double_sum(gamma, lam):
    rewards, values = drawn(3, 7), drawn(3, 7, seed=1)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    for row, (start, stop) in enumerate([(0, 7), (2, 6), (3, 4)]):
        mask[row, start:stop] = True
    found = generalised_advantages(rewards, values, mask, gamma, lam)
    for row, (start, stop) in enumerate([(0, 7), (2, 6), (3, 4)]):
        deltas = {}
        for t in range(start, stop):
            following = values[row, t + 1] if t + 1 < stop else 0.0
            deltas[t] = rewards[row, t] + gamma * following - values[row, t]
        for t in range(start, stop):
            expected = sum((gamma * lam) ** (u - t) * deltas[u] for u in range(t, stop))
            torch.testing.assert_close(found[row, t], expected)
    assert (found[~mask] == 0).all()


def test_whitening_looks_at_the_mask_alone():
    x = drawn(4, 6) * 5 + 3
    mask = drawn(4, 6, seed=2) > 0
    changed = torch.where(mask, x, 1e6)
    found = whitened(changed, mask)
    assert abs(float(found[mask].mean())) < 1e-12
    assert float(found[mask].std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert (found[~mask] == 0).all()
