"""The weighted sum of rewards."""

import pytest

from coterie.align.rewards import Corpus, Judge, Sample
from coterie.align.rewards.length import Length
from coterie.align.rewards.pattern import Pattern
from coterie.align.rewards.rhyme import Rhyme

SAMPLES = [Sample("", "in 1609", tokens=4), Sample("", "in May", tokens=8)]


def test_each_is_clipped_and_weighted_and_reported_as_it_was():
    rewards = [
        Pattern(regex=r"\d", weight=2.0),
        Length(most=4, clip=(-0.5, 0.0), weight=10.0),
        Pattern(regex="May", weight=-1.0),
    ]
    scores = Judge(rewards, Corpus())(SAMPLES)
    assert scores.total == [2.0, -5.0 - 1.0]
    assert scores.parts == {"pattern": [1.0, 0.0], "length": [0.0, -1.0], "pattern_2": [0.0, 1.0]}


def test_normalised_ones_count_deviations_from_the_mean_of_all():
    scores = Judge([Pattern(regex=r"\d", normalise=True, weight=3.0)], Corpus())(SAMPLES)
    assert scores.total == pytest.approx([3.0, -3.0], abs=1e-4)
    same = Judge([Pattern(regex="in", normalise=True)], Corpus())(SAMPLES)
    assert same.total == [0.0, 0.0]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"clip wants \[least, most\]"):
        Length(clip=(1.0, 0.0))
    with pytest.raises(ValueError, match="no form"):
        Rhyme(form="limerik")
