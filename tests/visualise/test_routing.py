"""The figures of panels, on routing that was planted."""

from typing import Any

import numpy as np
import pytest

from coterie.foundation.traces import NO_EXPERT, Trace, TraceHeader
from coterie.visualise.routing import card_of, entropy_of, figures_of, load_of, weights_of

# token, position, generated, experts and weights in layer 1 of 4 experts; layer 0 is dense
PLANTED = [
    (7, False, (0, 1), (0.75, 0.25)),
    (7, False, (0, 1), (0.75, 0.25)),
    (8, False, (2, 0), (0.50, 0.50)),
    (7, True, (0, 2), (3.00, 1.00)),  # not renormalised: a token counts as one all the same
    (8, True, (2, NO_EXPERT), (0.30, 0.0)),
    (8, True, (2, 0), (0.50, 0.50)),
]


@pytest.fixture
def planted():
    header = TraceHeader(experts=(0, 4), experts_per_token=2, candidates=1, lens=0)
    records = np.zeros(len(PLANTED) + 1, header.record_type())
    records["experts"] = NO_EXPERT
    for at, (token, generated, experts, weights) in enumerate(PLANTED):
        record = records[at]
        record["token"], record["generated"], record["read"] = token, generated, True
        record["experts"][1], record["weights"][1] = experts, weights
        record["shares"][1] = [0.25] * 4 if at % 2 else [1, 0, 0, 0]
        record["margin"][1] = at / 10
    records["position"] = np.arange(len(records))
    return Trace(header, records, [""] * len(records), {7: "seven", 8: "eight"})


def test_load_is_count_and_weight_over_an_even_share(planted):
    prompt, written = (load_of(planted, 1, phase) for phase in ("prompt", "generated"))
    assert (prompt.tokens, written.tokens) == (3, 3)
    np.testing.assert_allclose(prompt.share, np.array([3, 2, 1, 0]) * 4 / 6)
    np.testing.assert_allclose(prompt.weight, np.array([2.0, 0.5, 0.5, 0]) * 4 / 3)
    np.testing.assert_allclose(written.share, np.array([2, 0, 3, 0]) * 4 / 5)
    np.testing.assert_allclose(written.weight, np.array([1.25, 0, 1.75, 0]) * 4 / 3)
    assert (prompt.dead, prompt.hot) == ([3], [0])
    assert (written.dead, written.hot) == ([1, 3], [2])
    np.testing.assert_allclose(load_of(planted, 1).share, np.array([5, 2, 4, 0]) * 4 / 11)


def test_weights_are_shares_of_a_token(planted):
    assert weights_of(planted, 1).sum(1).tolist() == [1.0] * 6
    assert weights_of(planted, 1)[4].tolist() == [0, 0, 1, 0]
    assert entropy_of(planted, 1).tolist() == pytest.approx([0, 1, 0, 1, 0, 1])


def test_a_card_tells_lifts_of_weight(planted):
    card = card_of(planted, 1, 0)
    own = np.array([0.75, 0.75, 0.5, 0.75, 0.0, 0.5])
    assert [(each.token, each.seen) for each in card.favourites] == [(7, 3)]
    assert card.favourites[0].lift == pytest.approx(0.75 / own.mean())
    assert card.position == pytest.approx((own * np.arange(6) / 5).sum() / own.sum())
    assert card.partners == (
        (1, pytest.approx(2 / (5 * 2 / 6))),
        (2, pytest.approx(3 / (5 * 4 / 6))),
    )
    nothing = card_of(planted, 1, 3)
    assert (nothing.favourites, nothing.partners, nothing.share) == ((), (), 0.0)


def test_figures_are_those_of_the_panels(planted):
    figures: Any = figures_of(planted)
    assert [layer["layer"] for layer in figures["layers"]] == [1]
    (layer,) = figures["layers"]
    assert layer["generated"]["dead"] == [1, 3]
    assert layer["margin_median"] == pytest.approx(0.25)
    assert layer["entropy"] == pytest.approx(0.5)
    assert (figures["prompt_tokens"], figures["generated_tokens"]) == (4, 3)
