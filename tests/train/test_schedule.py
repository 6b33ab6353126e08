"""Schedules as functions of the step, and clipping by history."""

from __future__ import annotations

import itertools

import pytest

from coterie.foundation.settings import members
from coterie.train.clip import AdaptiveClip, NoClip, NormClip
from coterie.train.schedule import Constant, Cosine, Linear, Schedule, WarmupStableDecay


@pytest.mark.parametrize("schedule", [member() for member in members(Schedule)])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_schedule_stays_between_zero_and_one_and_moves_from_the_first_step(schedule, steps):
    rates = [schedule.multiplier(step, steps) for step in range(steps)]
    assert all(0.0 < rate <= 1.0 for rate in rates)


@pytest.mark.parametrize("member", members(Schedule))
def test_warmup_rises_linearly_to_the_peak(member):
    rates = [member(warmup=0.1).multiplier(step, 1000) for step in range(100)]
    differences = [b - a for a, b in itertools.pairwise(rates)]
    assert max(differences) == pytest.approx(min(differences))
    assert rates[-1] == pytest.approx(100 / 101)


def test_shapes_after_the_warmup():
    assert Constant().multiplier(999, 1000) == 1.0
    assert Cosine(warmup=0, final=0.1).multiplier(500, 1000) == pytest.approx(0.55)
    assert Cosine(final=0.1).multiplier(999, 1000) == pytest.approx(0.1, abs=1e-3)
    assert Linear(warmup=0).multiplier(250, 1000) == pytest.approx(0.75)
    wsd = WarmupStableDecay(decay=0.2)
    assert wsd.multiplier(799, 1000) == 1.0
    assert wsd.multiplier(900, 1000) == pytest.approx(0.5)
    assert wsd.multiplier(999, 1000) == pytest.approx(0.005)


def test_fixed_clip_has_one_limit_and_no_clip_has_none():
    for settings, limit in ((NormClip(max_norm=2.0), 2.0), (NoClip(), None)):
        clipper = settings.build()
        clipper.observe(50.0)
        assert clipper.limit() == limit
        assert clipper.state() == []


def test_adaptive_clip_follows_the_percentile_of_its_latest_norms():
    clipper = AdaptiveClip(percentile=50, history=5).build()
    assert clipper.limit() is None
    for norm in (100.0, 1.0, 2.0, 3.0, 4.0, 5.0, float("inf")):
        clipper.observe(norm)
    assert clipper.limit() == 3.0  # 100 has left the history, infinity never entered it
    restored = AdaptiveClip(percentile=50, history=5).build()
    restored.load_state(clipper.state())
    assert restored.limit() == clipper.limit()
    assert restored.state() == clipper.state()


def test_adaptive_clip_never_exceeds_its_fixed_limit():
    clipper = AdaptiveClip(percentile=100, max_norm=1.5).build()
    assert clipper.limit() == 1.5
    clipper.observe(9.0)
    assert clipper.limit() == 1.5
