"""Schedules as functions of the step, and clipping by history."""

from __future__ import annotations

import itertools

import pytest

from coterie.foundation.settings import members
from coterie.train.clip import AdaptiveClip, NoClip, NormClip
from coterie.train.schedule import (
    Constant,
    Cosine,
    Linear,
    Plateau,
    Schedule,
    WarmRestarts,
    WarmupStableDecay,
)


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
    assert Linear(warmup=0, final=0.5).multiplier(500, 1000) == pytest.approx(0.75)
    waves = WarmRestarts(warmup=0, cycles=2, growth=3, peaks=0.5, final=0.2)
    assert waves.multiplier(125, 1000) == pytest.approx(0.6)  # half way down the first quarter
    assert waves.multiplier(250, 1000) == pytest.approx(0.5)
    assert waves.multiplier(625, 1000) == pytest.approx(0.5 * 0.6)
    wsd = WarmupStableDecay(decay=0.2)
    assert wsd.multiplier(799, 1000) == 1.0
    assert wsd.multiplier(900, 1000) == pytest.approx(0.5)
    assert wsd.multiplier(999, 1000) == pytest.approx(0.005)


def test_decay_is_spread_over_what_the_warmup_leaves():
    assert Linear(warmup=0.5).multiplier(750, 1000) == pytest.approx(0.5)
    assert Linear(warmup=0.5, final=0.2).multiplier(750, 1000) == pytest.approx(0.6)
    assert Cosine(warmup=0.5, final=0.1).multiplier(750, 1000) == pytest.approx(0.55)
    assert Cosine(warmup=0.5, final=0.0).multiplier(625, 1000) == pytest.approx(0.853553, abs=1e-6)
    for member in (Linear, Cosine):
        assert member(warmup=0.5).multiplier(500, 1000) == pytest.approx(1.0, abs=2e-3)
        assert member(warmup=0.5, final=0.3).multiplier(999, 1000) == pytest.approx(0.3, abs=2e-3)
    late = WarmupStableDecay(warmup=0.5, decay=0.4, final=0.1)
    assert late.multiplier(600, 1000) == 1.0
    assert late.multiplier(800, 1000) == pytest.approx(0.55)
    assert WarmupStableDecay(decay=0).multiplier(999, 1000) == 1.0


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


@pytest.mark.parametrize(
    ("percentile", "limit"), [(1, 1.0), (25, 1.0), (26, 2.0), (50, 2.0), (75, 3.0), (100, 4.0)]
)
def test_the_percentile_is_the_nearest_rank(percentile, limit):
    clipper = AdaptiveClip(percentile=percentile).build()
    for norm in (3.0, 1.0, 4.0, 2.0, 0.0, float("nan"), float("inf")):
        clipper.observe(norm)
    assert clipper.limit() == limit


def test_adaptive_clip_never_exceeds_its_fixed_limit():
    clipper = AdaptiveClip(percentile=100, max_norm=1.5).build()
    assert clipper.limit() == 1.5
    clipper.observe(9.0)
    assert clipper.limit() == 1.5
    lower = AdaptiveClip(percentile=100, max_norm=1.5).build()
    lower.observe(0.5)
    assert lower.limit() == 0.5


def test_a_plateau_lowers_the_rate_down_to_its_least():
    schedule = Plateau(factor=0.5, patience=2, final=0.1)
    assert [schedule.stands_still(stale) for stale in range(5)] == [False, False, True, False, True]
    assert [schedule.lowered(number) for number in range(5)] == [1.0, 0.5, 0.25, 0.125, 0.1]
    assert not Cosine().stands_still(2)
    assert Cosine().lowered(3) == 1.0
