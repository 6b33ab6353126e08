"""The chart of losses says what they are losses of."""

import pytest

from coterie.visualise.sections.training import loss_section
from coterie.visualise.series import Series


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("model: {ngram: {order: 8}}", True),
        ("model: {ngram: null}", False),
        ("model: 3", False),
        ("", False),
        ("model: [", False),
    ],
)
def test_counted_ngrams_are_told_beside_the_curves(config, told, synthetic):
    series = Series(config=config)
    for event in synthetic(steps=40):
        series.update(event)
    assert ("validation with its counted n-grams" in loss_section(series)) == told
