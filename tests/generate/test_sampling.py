"""The chain from logits to a token: each link by hand, the draw against its distribution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.foundation.errors import CoterieError, SettingsError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.generate.sampling import (
    Sampler,
    SamplingSettings,
    apply_temperature,
    draw,
    keep_top_k,
    keep_top_p,
    penalise_repeats,
)

INF = float("inf")


def kept(logits: torch.Tensor) -> list[int]:
    return torch.isfinite(logits).nonzero().flatten().tolist()


def test_penalty_divides_positive_and_multiplies_negative_once_per_distinct_token():
    logits = torch.tensor([2.0, -2.0, 1.0, 0.0, 3.0])
    penalised = penalise_repeats(logits, [0, 1, 1, 1, 0, 3], 2.0)
    assert penalised.tolist() == [1.0, -4.0, 1.0, 0.0, 3.0]
    assert logits.tolist() == [2.0, -2.0, 1.0, 0.0, 3.0]  # the model's own stay untouched


def test_penalty_looks_only_at_its_window():
    settings = SamplingSettings(temperature=0, repetition_penalty=10.0, repetition_window=2)
    logits = torch.tensor([1.0, 0.9, 0.8])
    assert Sampler(settings).choose(logits, [0, 1, 1]).token == 0
    assert Sampler(settings).choose(logits, [1, 0, 1]).token == 2


@pytest.mark.parametrize("penalty", [1.1, 2.0, 50.0])
def test_penalty_never_rewards(penalty):
    logits = torch.linspace(-5, 5, 11)
    assert (penalise_repeats(logits, list(range(11)), penalty) <= logits).all()


def test_temperature_zero_takes_the_likeliest_and_leaves_chance_alone():
    sampler = Sampler(SamplingSettings(temperature=0))
    state = sampler._generator.get_state()
    assert sampler.choose(torch.tensor([0.0, 5.0, 4.9999]), []).token == 1
    assert torch.equal(state, sampler._generator.get_state())


def test_a_tiny_temperature_does_not_overflow():
    scaled = apply_temperature(torch.tensor([1e30, 1.0, -1e30]), 1e-30)
    assert scaled.softmax(-1).tolist() == [1.0, 0.0, 0.0]


def test_top_k_keeps_exactly_k_even_among_equals():
    assert len(kept(keep_top_k(torch.zeros(10), 3))) == 3
    assert kept(keep_top_k(torch.tensor([0.0, 3.0, 1.0, 2.0]), 2)) == [1, 3]
    assert len(kept(keep_top_k(torch.zeros(4), 99))) == 4


def test_top_p_keeps_the_fewest_that_hold_the_mass():
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    assert kept(keep_top_p(logits, 0.4)) == [1]
    assert kept(keep_top_p(logits, 0.7)) == [1, 3]
    assert kept(keep_top_p(logits, 0.8)) == [1, 2, 3]
    assert kept(keep_top_p(logits, 1.0)) == [0, 1, 2, 3]
    assert kept(keep_top_p(logits, 1e-9)) == [1]


def test_the_nucleus_ends_where_the_mass_is_reached():
    assert kept(keep_top_p(torch.zeros(2), 0.5)) == [0]
    assert kept(keep_top_p(torch.zeros(4), 0.5)) == [0, 1]
    assert kept(keep_top_p(torch.zeros(4), 0.75)) == [0, 1, 2]
    assert kept(keep_top_p(torch.tensor([-INF, 0.0, -INF, 0.0]), 0.5)) == [1]


def drawn(probabilities: list[float], number: int = 60, **settings) -> set[int]:
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=1, **settings))
    logits = torch.tensor(probabilities).log()
    return {sampler.choose(logits, []).token for _ in range(number)}


def test_the_nucleus_is_of_what_top_k_left():
    # Of .4 and .3, made .57 and .43, the first alone holds half; of all four it would not.
    assert drawn([0.4, 0.3, 0.2, 0.1], top_k=2, top_p=0.5) == {0}
    assert drawn([0.4, 0.3, 0.2, 0.1], top_p=0.5) == {0, 1}
    assert drawn([0.4, 0.3, 0.2, 0.1], top_k=3) == {0, 1, 2}


def test_the_nucleus_is_of_penalised_and_tempered_logits():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    cold = Sampler(SamplingSettings(temperature=0.25, top_p=0.7))
    assert {cold.choose(logits, []).token for _ in range(40)} == {0}  # .4⁴ is .72 of the fourths
    tired = Sampler(SamplingSettings(temperature=1.0, top_k=1, repetition_penalty=2.0))
    assert tired.choose(logits, [0]).token == 1


def test_a_banned_token_is_never_chosen_and_takes_no_part():
    for settings in (SamplingSettings(temperature=0), SamplingSettings(temperature=1.0, top_k=2)):
        sampler = Sampler(settings, banned=[1])
        logits = torch.tensor([1.0, 9.0, 2.0, 0.0])
        tokens = {sampler.choose(logits, []).token for _ in range(40)}
        assert tokens == ({2} if settings.greedy else {0, 2})
        assert logits[1] == 9.0


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=30),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 30),
    st.floats(0.01, 1),
)
def test_draw_only_ever_takes_a_kept_token(values, uniform, top_k, top_p):
    logits = keep_top_p(keep_top_k(torch.tensor(values), top_k), top_p)
    assert draw(logits, uniform) in kept(logits)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_draw_at_the_edges_skips_impossible_tokens(uniform):
    assert draw(torch.tensor([-INF, 0.0, 1.0, -INF]), uniform) in (1, 2)


def test_draws_follow_the_distribution():
    expected = torch.tensor([0.5, 0.3, 0.15, 0.05])
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=3))
    count = torch.zeros(4)
    for _ in range(1500):
        count[sampler.choose(expected.log(), []).token] += 1
    assert torch.allclose(count / 1500, expected, atol=0.05)


def test_logprob_is_the_models_own():
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    settings = SamplingSettings(temperature=0.5, top_k=1, repetition_penalty=3.0)
    choice = Sampler(settings).choose(logits, [])
    assert choice.token == 2
    assert math.isclose(math.exp(choice.logprob), 0.7, rel_tol=1e-5)


def test_the_seed_decides_and_the_global_generators_are_left_alone():
    logits = torch.zeros(50)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    drawn = [
        [Sampler(SamplingSettings(seed=seed)).choose(logits, []).token] for seed in (5, 5, 6, 7, 8)
    ]
    assert drawn[0] == drawn[1]
    assert len({each[0] for each in drawn}) > 1
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("bad", [float("nan"), INF])
def test_output_that_is_not_finite_is_refused(bad):
    with pytest.raises(CoterieError, match="not finite"):
        Sampler(SamplingSettings()).choose(torch.tensor([0.0, bad]), [])


@pytest.mark.parametrize(
    "word",
    ["temperature=-1", "top_k=0", "top_p=0", "top_p=1.1", "repetition_penalty=0", "max_tokens=0",
     "seed=-1", "stop=['']", "cache=fulll", "temprature=1", "cache.size=0", "temperature=hot"],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(word):
    with pytest.raises(SettingsError) as refused:
        load_settings(SamplingSettings, [overrides_layer([word])])
    assert word.partition("=")[0] in str(refused.value)


def test_unknown_key_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean “temperature”"):
        load_settings(SamplingSettings, [overrides_layer(["temprature=1"])])


def test_one_stop_text_may_be_written_alone():
    assert SamplingSettings.model_validate({"stop": "END"}).stop == ("END",)


def test_settings_survive_a_round_trip():
    settings = SamplingSettings.model_validate({"cache": {"kind": "window", "size": 8}, "top_k": 3})
    assert SamplingSettings.model_validate(settings.model_dump()) == settings
