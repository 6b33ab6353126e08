"""The mixers: which ratio each asks for, the rows it gives, and what it refuses."""

from __future__ import annotations

import itertools
import math

import pytest

from coterie.data.mix import Equal, Proportional, Source, Temperature, Weighted
from coterie.foundation.errors import DataError
from coterie.foundation.settings import ValidationError

SOURCES = [Source("verse", 9_000, 90), Source("prose", 1_000, 10)]
KINDS = [Equal(), Proportional(), Temperature(), Weighted(weights=(1.7, 0.3))]


@pytest.mark.parametrize(("mix", "ratio"), [*zip(KINDS, (0.5, 0.9, 0.75, 0.85), strict=True)])
def test_the_ratio_of_each(mix, ratio):
    assert mix.ratio(SOURCES) == pytest.approx([ratio, 1 - ratio])


def test_temperatures_between_proportional_and_equal():
    assert Temperature(temperature=1).ratio(SOURCES) == pytest.approx(Proportional().ratio(SOURCES))
    assert Temperature(temperature=1e6).ratio(SOURCES) == pytest.approx([0.5, 0.5], abs=1e-4)


def rows_of(mix, step, rank=0, world=1, sources=SOURCES):
    mixer = mix.build(sources, seed=1)
    shares = mixer.shares(step, 12, rank, world)
    return [(share.source, share.first + i) for share in shares for i in range(share.count)]


@pytest.mark.parametrize("mix", KINDS, ids=lambda mix: mix.kind)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_read_together_what_one_reads_and_no_row_is_skipped(mix, world):
    seen = {0: 0, 1: 0}
    for step in range(40):
        rows = rows_of(mix, step)
        parts = [rows_of(mix, step, rank, world) for rank in range(world)]
        assert [*itertools.chain(*parts)] == rows
        for source, number in rows:
            assert number == seen[source]
            seen[source] += 1


def test_one_source_is_read_row_after_row():
    assert rows_of(Proportional(), 7, sources=SOURCES[:1]) == [(0, n) for n in range(84, 96)]


def test_epochs_at_most_count_readings_of_the_text():
    mix = Equal(epochs_at_most=2)
    rows = [row for step in range(16) for row in rows_of(mix, step)]
    assert max(number for source, number in rows if source == 1) == 19
    mixer = mix.build(SOURCES, seed=0)
    assert mixer.shares(15, 12, 0, 1)
    with pytest.raises(DataError, match="used up after 200 rows"):
        mixer.shares(16, 12, 0, 1)
    alone = Proportional(epochs_at_most=0.5).build(SOURCES[:1], seed=0)
    with pytest.raises(DataError, match="used up after 45 rows"):
        alone.shares(3, 12, 0, 1)


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ((0.7, -0.3), "not -0.3"),
        ((0.7, math.nan), "finite|not nan"),
        ((0.0, 0.0), "add up to 0"),
        ((), "add up to 0"),
        ({"verse": -1.0}, "not -1"),
    ],
)
def test_bad_weights_are_refused(weights, why):
    with pytest.raises(ValidationError, match=why):
        Weighted(weights=weights)


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ((1.0,), "1 weights were given for 2 sources: verse, prose"),
        ({"verse": 1.0, "pros": 2.0}, "“pros”, but no such source; did you mean “prose”"),
        ({"verse": 1.0}, "no weight for the source “prose”"),
    ],
)
def test_weights_that_do_not_fit_the_sources_are_refused(weights, why):
    with pytest.raises(DataError, match=why):
        Weighted(weights=weights).build(SOURCES, seed=0)


def test_weights_by_name():
    assert Weighted(weights={"prose": 3.0, "verse": 1.0}).ratio(SOURCES) == [0.25, 0.75]
