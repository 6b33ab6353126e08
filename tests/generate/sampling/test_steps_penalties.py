"""Penalties by hand: repetition of Keskar et al., frequency and presence of OpenAI."""

import numpy as np
import pytest

from coterie.generate.sampling.candidates import Candidates
from coterie.generate.sampling.steps import penalise_counts, penalise_repeats


def row(*logits: float, tokens=None) -> Candidates:
    return Candidates(np.array(logits), tokens)


def test_penalty_divides_positive_and_multiplies_negative_once_per_distinct_token():
    given = row(2.0, -2.0, 1.0, 0.0, 3.0)
    penalised = penalise_repeats(given, [0, 1, 1, 1, 0, 3], 2.0)
    assert penalised.logits.tolist() == [1.0, -4.0, 1.0, 0.0, 3.0]
    assert given.logits.tolist() == [2.0, -2.0, 1.0, 0.0, 3.0]  # the model's own stay untouched


@pytest.mark.parametrize("penalty", [1.1, 2.0, 50.0])
def test_penalty_never_rewards(penalty):
    given = row(*np.linspace(-5, 5, 11))
    assert (penalise_repeats(given, list(range(11)), penalty).logits <= given.logits).all()


def test_penalties_find_the_tokens_that_are_left():
    left = np.array([2, 5])
    given = row(1.0, 1.0, tokens=left)
    assert penalise_repeats(given, [5, 4], 2.0).logits.tolist() == [1.0, 0.5]
    counts = np.array([0, 0, 3.0, 0, 9, 1])
    assert penalise_counts(given, counts, 0.5, 0.25).logits.tolist() == [-0.75, 0.25]


def test_frequency_counts_and_presence_does_not():
    counts = np.array([0.0, 1.0, 4.0])
    assert penalise_counts(row(1.0, 1.0, 1.0), counts, 0.5, 0.0).logits.tolist() == [1.0, 0.5, -1.0]
    assert penalise_counts(row(1.0, 1.0, 1.0), counts, 0.0, 0.5).logits.tolist() == [1.0, 0.5, 0.5]
    assert penalise_counts(row(1.0, 1.0, 1.0), counts, 0.0, -1.0).logits.tolist() == [1.0, 2.0, 2.0]
