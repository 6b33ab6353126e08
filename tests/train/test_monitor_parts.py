"""The health of parts and routers is what direct computation gives, and training is the same."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.checkpoint.layout import MODEL, OPTIMIZER
from coterie.foundation.event_log import read_events
from coterie.model import RouterStats
from coterie.train import train
from coterie.train.events import LoadMeasured, PartsMeasured, StepDone
from coterie.train.metrics import StepMetrics
from coterie.train.monitor.parts import PartWatch, part_of
from coterie.train.monitor.report import loss_by_source
from coterie.train.objective import Terms
from coterie.train.optimizer import RoleParameter


def planted(name: str, role: str, weight: torch.Tensor, gradient: float) -> RoleParameter:
    parameter = torch.nn.Parameter(weight)
    parameter.grad = torch.full_like(weight, gradient)
    return RoleParameter(name, role, parameter)


def test_parts_are_measured_as_planted():
    """Two matrices of experts make one part; a router at zero has no ratio; 4 is the loss scale."""
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(700, 300, generator=generator)  # more values than are looked at
    some = [
        planted("blocks.0.feedforward.experts.0.up", "matrix", torch.full((3, 4), 2.0), 8.0),
        planted("blocks.1.feedforward.experts.0.up", "matrix", torch.full((2, 2), 1.0), 4.0),
        planted("blocks.0.feedforward.router.weight", "router", torch.zeros(5), 0.0),
        planted("embedding.weight", "embedding", large.clone(), 1.0),
    ]
    watch = PartWatch(some)
    watch.before(4.0)
    with torch.no_grad():
        for each in some:
            each.tensor.add_(0.5)
    experts, router, embedding = watch.after()
    assert [each.part for each in (experts, router, embedding)] == [
        "experts",
        "router",
        "embedding",
    ]
    assert experts.parameters == 16
    assert experts.gradient_norm == pytest.approx(math.sqrt(12 * 2.0**2 + 4 * 1.0**2))
    assert experts.weight_norm == pytest.approx(math.sqrt(12 * 2.0**2 + 4 * 1.0**2))
    assert experts.update_norm == pytest.approx(math.sqrt(16) * 0.5)
    assert experts.update_ratio == pytest.approx(2 / math.sqrt(52))
    assert router.gradient_norm == 0.0
    assert math.isnan(router.update_ratio)
    assert embedding.gradient_norm == pytest.approx(math.sqrt(large.numel()) / 4)
    assert embedding.update_norm == pytest.approx(math.sqrt(large.numel()) * 0.5)
    assert embedding.weight_norm == pytest.approx(float(large.norm()), rel=0.01)


@pytest.mark.parametrize(
    ("name", "role", "part"),
    [
        ("blocks.1.attention.query", "matrix", "attention"),
        ("blocks.1.feedforward.shared.0.up", "matrix", "shared"),
        ("blocks.1.feedforward.mlp.up", "matrix", "mlp"),
        ("embedding.projection", "matrix", "projection"),
        ("blocks.1.attention.query_bias", "bias", "bias"),
    ],
)
def test_a_matrix_counts_to_where_it_stands(name, role, part):
    assert part_of(RoleParameter(name, role, torch.zeros(1))) == part


def stats(probabilities: list[list[float]], valid: list[bool] | None = None) -> RouterStats:
    shares, zero = torch.tensor(probabilities), torch.zeros(())
    counted = None if valid is None else torch.tensor(valid)
    tokens = len(shares) if counted is None else int(counted.sum())
    return RouterStats(
        load=torch.tensor([1, 1]), dropped=torch.tensor(0), tokens=torch.tensor(tokens),
        auxiliary=zero, z=zero, entropy_term=zero, probabilities=shares,
        indices=torch.zeros(len(shares), 1, dtype=torch.long), valid=counted, layer=3,
    )  # fmt: skip


def test_entropy_is_the_mean_over_the_valid_tokens_of_all_micro_batches():
    """Two undecided tokens and one certain one; the padding is undecided and counts nothing."""
    metrics = StepMetrics()
    metrics.add(Terms((), (stats([[0.5, 0.5], [0.5, 0.5]]),)), {}, entropies=True)
    metrics.add(Terms((), (stats([[1.0, 0.0], [0.5, 0.5]], [True, False]),)), {}, entropies=True)
    total, tokens = metrics.entropies[3].tolist()
    assert tokens == 3
    assert total / tokens == pytest.approx(2 / 3 * math.log(2))
    plain = StepMetrics()
    plain.add(Terms((), (stats([[0.5, 0.5]]),)), {})
    assert not plain.entropies


def test_loss_by_source_divides_each_sources_rows_by_their_own_targets():
    rows = torch.tensor([[1.0, 0.0, 1.0], [6.0, 5.0, 2.0], [3.0, 2.0, 1.0]])
    assert loss_by_source(rows, ["a", "b", "c"]) == {"a": 2.5, "b": 2.0}
    assert loss_by_source(None, ["a"]) == {}


def test_observing_changes_no_bit_of_training(tiny, new_run):
    """With accumulation, clipping and everything observed at each step, or nothing at all."""
    common = {"steps": 5, "gradient_accumulation": 2, "evaluate_every": 0, "sample_every": 0}
    all_of_it = {"health_every": 1, "load_every": 1, "log_every": 1}
    nothing = {"health_every": 0, "load_every": 100, "log_every": 100}
    found = []
    for name, observing in (("all", all_of_it), ("nothing", nothing)):
        run = new_run(name)
        train(tiny(train={**common, **observing}), run, preset="tiny")
        last = run.checkpoints / "step-00000005"
        found.append([(last / file).read_bytes() for file in (MODEL, OPTIMIZER)])
        events = list(read_events(run.events))
        parts = [event for event in events if isinstance(event, PartsMeasured)]
        assert [event.step for event in parts] == ([1, 2, 3, 4, 5] if name == "all" else [])
        if name == "all":
            loads = [event for event in events if isinstance(event, LoadMeasured)]
            entropies = [layer.entropy for event in loads for layer in event.layers]
            assert entropies
            assert all(0 < each <= math.log(4) + 1e-6 for each in entropies)
            steps = [event for event in events if isinstance(event, StepDone)]
            for step, part in zip(steps, parts, strict=True):  # the parts make the whole
                together = math.hypot(*(each.gradient_norm for each in part.parts))
                assert together == pytest.approx(step.gradient_norm, rel=1e-5)
    assert found[0] == found[1]
