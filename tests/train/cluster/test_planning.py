"""The layout chosen is the fastest that fits, and what is said of the others is true."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.train.cluster import DEVICES, Layout, plan_cluster, planning
from coterie.train.cluster.anatomy import Anatomy
from coterie.train.cluster.layout import layouts
from coterie.train.cluster.planning import _Search
from coterie.train.fitting import usable
from coterie.train.flops import step_flops
from coterie.train.precision import Precision
from coterie.train.pretraining import fill_vocabulary_size

PRECISION = Precision(torch.device("cpu"), "bfloat16", "")
H100 = DEVICES["h100"]


@pytest.fixture
def run(tiny):
    """Return a run of eight rows, its vocabulary known."""
    return fill_vocabulary_size(tiny(train={"batch_size": 8}), 300)


def limit_of(room: float) -> int:
    """Return the bytes of a device that leaves so much."""
    return round(room / 0.95) + (300 << 20) + 1


def test_one_device_computes_without_waiting(run):
    found = plan_cluster(run, H100, 1, 1, PRECISION, 80 << 30).chosen
    assert found.layout == Layout()
    ideal = step_flops(run) / (989e12 * 0.77 * 0.28)
    assert found.seconds == pytest.approx(ideal)
    assert (found.waiting, found.idle, found.efficiency) == (0, 0, pytest.approx(1))
    assert found.mfu == pytest.approx(0.77 * 0.28)


def test_the_time_adds_up_by_hand(run):
    search = _Search(Anatomy(run), H100, 4, PRECISION)
    ideal = step_flops(run) / 4 / (989e12 * 0.77 * 0.28)
    piped = search.estimate(Layout(data=2, pipeline=2, pieces=4))
    assert piped.compute == pytest.approx(ideal)
    assert piped.idle == pytest.approx(ideal / 4)  # one turn beside four
    (reduced,) = (each for each in piped.flows if each.kind == "gradients reduced")
    (sends,) = (each for each in piped.flows if each.kind == "pipeline sends")
    assert piped.waiting == pytest.approx(
        max(reduced.seconds - ideal, reduced.seconds) + sends.seconds
    )
    again = search.estimate(Layout(data=4, recompute=True))
    assert 1.15 < again.compute / ideal < 1.34  # a third, less the head, which is not repeated


@pytest.mark.parametrize("share", [0.7])
def test_nothing_that_fits_is_faster(run, share):
    search = _Search(Anatomy(run), H100, 4, PRECISION)
    free = plan_cluster(run, H100, 4, 1, PRECISION, 80 << 30).chosen
    limit = limit_of(share * free.memory_bytes)
    found = plan_cluster(run, H100, 4, 1, PRECISION, limit)
    fitting = [each for each in layouts(search.anatomy, 4, 4)
               if sum(search.memory(each).values()) <= usable(limit)]  # fmt: skip
    assert found.chosen is not None
    assert found.chosen.memory_bytes <= usable(limit)
    fastest = min(search.estimate(each).seconds for each in fitting)
    assert found.chosen.seconds == pytest.approx(fastest)
    slower = [each for each in found.others if each.memory_bytes <= usable(limit)]
    for each in found.others:
        assert each.memory_bytes > usable(limit) or each.seconds >= found.chosen.seconds
        assert each.reason
    assert len(slower) <= 1
    assert json.loads(json.dumps(found.summary()))["chosen"]["words"]


def test_where_nothing_fits_the_nearest_are_told(run):
    found = plan_cluster(run, H100, 4, 1, PRECISION, (300 << 20) + 4000)
    assert found.chosen is None
    assert "too much" in found.others[0].reason
    sizes = [each.memory_bytes for each in found.others]
    assert sizes == sorted(sizes)


def test_what_training_does_not_take_is_told(run):
    assert plan_cluster(run, H100, 1, 1, PRECISION, 80 << 30).refused == ""
    assert planning._refused(run, Layout(data=2, shard=2)) == ""
    assert "cannot be shared by 16" in planning._refused(run, Layout(data=16))


def test_layouts_divide_what_they_must(run):
    found = list(layouts(Anatomy(run), 8, per_node=4))
    assert len(set(found)) == len(found)
    for each in found:
        assert each.world == 8
        assert 8 % (each.replicas * each.pieces) == 0
        assert 2 % each.tensor == 0  # heads
        assert 2 % each.pipeline == 0  # layers
        assert 4 % each.expert == 0
        assert each.replicas % each.expert == 0


def test_what_cannot_be_divided_is_refused(run):
    with pytest.raises(UserError, match="10 devices cannot be divided over 4 nodes"):
        plan_cluster(run, H100, 10, 4, PRECISION, 80 << 30)
    with pytest.raises(UserError, match="No layout divides this run over 7 devices"):
        plan_cluster(run, H100, 7, 1, PRECISION, 80 << 30)


def test_a_slower_network_costs_time_and_a_larger_batch_hides_it(run):
    slow = dataclasses.replace(H100, outside=1e9)
    fast, poor = (plan_cluster(run, d, 8, 8, PRECISION, 80 << 30).chosen for d in (H100, slow))
    assert poor.seconds > fast.seconds
    rows = run.model_copy(update={"train": run.train.model_copy(update={"batch_size": 8192})})
    assert plan_cluster(rows, slow, 8, 8, PRECISION, 80 << 30).chosen.efficiency > poor.efficiency
