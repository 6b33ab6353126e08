"""The figures of routing health at their known points."""

import math
from types import SimpleNamespace

import pytest
import torch

from coterie.evaluate.routing import LoadCounter, RoutingHealth, mean_utilisation


def test_an_even_load_is_healthy():
    health = RoutingHealth(0, (10, 10, 10, 10))
    assert (health.imbalance, health.entropy, health.dead) == (0.0, pytest.approx(1.0), 0.0)


def test_one_expert_taking_all_is_the_worst():
    health = RoutingHealth(0, (40, 0, 0, 0))
    assert (health.imbalance, health.entropy, health.dead) == (3.0, pytest.approx(0.0), 0.75)


def test_two_of_four_evenly():
    health = RoutingHealth(1, (20, 20, 0, 0))
    assert health.imbalance == 1.0
    assert health.entropy == pytest.approx(math.log(2) / math.log(4))
    assert health.dead == 0.5


def test_dead_means_less_than_a_hundredth_of_an_even_load():
    assert RoutingHealth(0, (1000, 1000, 9, 1000)).dead == 0.0
    assert RoutingHealth(0, (1000, 1000, 7, 1000)).dead == 0.25


def test_no_tokens_and_a_single_expert_are_no_errors():
    assert RoutingHealth(0, (0, 0)).imbalance == 0.0
    assert RoutingHealth(0, (5,)).entropy == 1.0


def test_loads_add_up_layer_by_layer():
    counter = LoadCounter()
    for _ in range(3):
        counter.add([
            SimpleNamespace(layer=2, load=torch.tensor([1, 3]), dropped=1, tokens=3),
            SimpleNamespace(layer=0, load=torch.tensor([2, 2]), dropped=0, tokens=3),
        ])  # fmt: skip
    low, high = counter.health()
    assert (low.layer, low.load, low.dropped) == (0, (6, 6), 0)
    assert (high.layer, high.load, high.dropped) == (2, (3, 9), 3)
    assert low.experts_per_token == pytest.approx(12 / 9)


@pytest.mark.parametrize(
    ("load", "expected"), [((5, 5, 5, 5), 1.0), ((7, 7, 0, 0), 0.5), ((9, 0, 0, 0), 0.25)]
)
def test_utilisation_is_the_effective_share_of_experts_in_use(load, expected):
    assert RoutingHealth(0, load).utilisation == pytest.approx(expected)


def test_utilisation_of_a_skewed_load_follows_its_formula_and_is_averaged_over_layers():
    shares = [0.5, 0.25, 0.125, 0.125]
    skewed = RoutingHealth(0, (8, 4, 2, 2))
    entropy = -sum(share * math.log(share) for share in shares)
    assert skewed.utilisation == pytest.approx(math.exp(entropy) / 4)
    even = RoutingHealth(1, (3, 3))
    assert mean_utilisation((skewed, even)) == pytest.approx((math.exp(entropy) / 4 + 1) / 2)
    assert mean_utilisation(()) == 1.0
