"""Temperature and truncation: hand cases, edges, and an independent reference in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.generate.sampling.candidates import Candidates, probabilities
from coterie.generate.sampling.drawing import draw
from coterie.generate.sampling.steps import (
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)

INF = np.inf


def row(*logits: float, dtype: type[np.floating] = np.float64) -> Candidates:
    return Candidates(np.array(logits, dtype=dtype))


def of(*chances: float) -> Candidates:
    return Candidates(np.log(np.array(chances)))


def kept(candidates: Candidates) -> list[int]:
    return [candidates.token(place) for place in range(len(candidates.logits))]


def test_a_tiny_temperature_does_not_overflow():
    scaled = apply_temperature(row(1e30, 1.0, -1e30, dtype=np.float32), 1e-30)
    assert probabilities(scaled.logits).tolist() == [1.0, 0.0, 0.0]


def test_temperature_sharpens_and_flattens():
    assert np.allclose(
        probabilities(apply_temperature(of(0.8, 0.2), 0.5).logits), [16 / 17, 1 / 17]
    )
    assert np.allclose(probabilities(apply_temperature(of(0.8, 0.2), 2.0).logits), [2 / 3, 1 / 3])


def test_top_k_keeps_exactly_k_even_among_equals():
    assert kept(keep_top_k(row(*[0.0] * 10), 3)) == [0, 1, 2]
    assert kept(keep_top_k(row(0.0, 3.0, 1.0, 2.0), 2)) == [1, 3]
    assert len(kept(keep_top_k(row(*[0.0] * 4), 99))) == 4


def test_top_p_keeps_the_fewest_that_hold_the_mass():
    logits = of(0.1, 0.5, 0.15, 0.25)
    assert kept(keep_top_p(logits, 0.4)) == [1]
    assert kept(keep_top_p(logits, 0.7)) == [1, 3]
    assert kept(keep_top_p(logits, 0.8)) == [1, 2, 3]
    assert kept(keep_top_p(logits, 1.0)) == [0, 1, 2, 3]
    assert kept(keep_top_p(logits, 1e-9)) == [1]
    assert kept(keep_top_p(logits, 0.0)) == [1]


def test_the_nucleus_ends_where_the_mass_is_reached():
    assert kept(keep_top_p(row(0, 0), 0.5)) == [0]
    assert kept(keep_top_p(row(0, 0, 0, 0), 0.5)) == [0, 1]
    assert kept(keep_top_p(row(0, 0, 0, 0), 0.75)) == [0, 1, 2]
    assert kept(keep_top_p(row(-INF, 0.0, -INF, 0.0), 0.5)) == [1]


def test_the_nucleus_depends_on_whether_temperature_comes_first():
    """[3, 2, 1] at temperature 0.5: sharpened, the first alone holds 0.8; before, it does not."""
    logits = row(3, 2, 1)
    assert kept(keep_top_p(apply_temperature(logits, 0.5), 0.8)) == [0]
    assert kept(apply_temperature(keep_top_p(logits, 0.8), 0.5)) == [0, 1]


def test_min_p_compares_with_the_likeliest():
    logits = of(0.5, 0.3, 0.15, 0.05)
    assert kept(keep_min_p(logits, 0.0)) == [0, 1, 2, 3]
    assert kept(keep_min_p(logits, 0.2)) == [0, 1, 2]
    assert kept(keep_min_p(logits, 0.61)) == [0]
    assert kept(keep_min_p(logits, 1.0)) == [0]
    assert kept(keep_min_p(row(1, 1, -INF), 1.0)) == [0, 1]


def test_typical_keeps_the_tokens_of_expected_surprise_and_not_the_likeliest():
    # Entropy 1.28 nats; the surprises are 0.69 (off by .59), 2.30 (off by 1.02), 1.20 (by .08) …
    logits = of(0.5, 0.1, 0.3, 0.1)
    surprise = -logits.logits
    entropy = float((np.exp(-surprise) * surprise).sum())
    ranked = np.argsort(np.abs(surprise - entropy), kind="stable").tolist()
    assert ranked == [2, 0, 1, 3]
    assert kept(keep_typical(logits, 0.3)) == [2]
    assert kept(keep_typical(logits, 0.31)) == [0, 2]
    assert kept(keep_typical(logits, 0.81)) == [0, 1, 2]
    assert kept(keep_typical(logits, 1.0)) == [0, 1, 2, 3]


def test_impossible_tokens_disturb_no_step():
    logits = row(-INF, 0.0, -INF, 0.5, dtype=np.float32)
    for step in (
        lambda each: keep_top_p(each, 0.99), lambda each: keep_typical(each, 0.99),
        lambda each: keep_min_p(each, 0.1),
    ):  # fmt: skip
        assert set(kept(step(logits))) == {1, 3}
    assert kept(keep_top_k(logits, 3))[-1] == 3


@settings(max_examples=25)
@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=30),
    st.floats(0, 1, exclude_max=True), st.integers(1, 30), st.floats(0.01, 1),
    st.floats(0, 1), st.floats(0.01, 1),
)  # fmt: skip
def test_draw_only_ever_takes_a_kept_token(values, point, top_k, top_p, min_p, typical_p):
    left = keep_top_p(keep_top_k(row(*values), top_k), top_p)
    left = keep_typical(keep_min_p(left, min_p), typical_p)
    place = draw(probabilities(left.logits), point)
    assert left.token(place) in kept(left)


@pytest.mark.parametrize("size", [50, 5000])
@pytest.mark.parametrize("spread", [0.1, 3.0, 12.0])
@pytest.mark.parametrize("mass", [0.05, 0.9, 0.999])
def test_masses_equal_a_full_sort(size, spread, mass):
    logits = np.random.default_rng(size).standard_normal(size) * spread
    each = np.exp(logits - logits.max())
    each /= each.sum()
    order = np.argsort(-each, kind="stable")
    nucleus = order[: np.searchsorted(each[order].cumsum(), mass) + 1]
    assert kept(keep_top_p(Candidates(logits), mass)) == sorted(nucleus.tolist())
    order = np.argsort(np.abs(-np.log(each) + (each * np.log(each)).sum()), kind="stable")
    typical = order[: np.searchsorted(each[order].cumsum(), mass) + 1]
    assert kept(keep_typical(Candidates(logits), mass)) == sorted(typical.tolist())


@pytest.mark.exhaustive
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_steps_equal_those_of_transformers(spread):
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.from_numpy(np.random.default_rng(3).standard_normal(1000) * spread)
    for theirs, ours in (
        (warpers.TopKLogitsWarper(40), lambda each: keep_top_k(each, 40)),
        (warpers.TopPLogitsWarper(0.85), lambda each: keep_top_p(each, 0.85)),
        (warpers.MinPLogitsWarper(0.05), lambda each: keep_min_p(each, 0.05)),
        (warpers.TypicalLogitsWarper(0.6), lambda each: keep_typical(each, 0.6)),
    ):
        expected = torch.isfinite(theirs(None, logits[None])[0]).nonzero().flatten().tolist()
        assert kept(ours(Candidates(logits.numpy()))) == expected
