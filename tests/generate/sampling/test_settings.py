"""Sampling settings: what is refused, with which words, and that they survive a round trip."""

import pytest

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.generate.sampling import SamplingSettings
from coterie.generate.sampling.settings import ORDER
from coterie.generate.sampling.steps import STEPS


def load(*words: str) -> SamplingSettings:
    return load_settings(SamplingSettings, [overrides_layer(words)]).settings


@pytest.mark.parametrize(
    "word",
    ["temperature=-1", "top_k=0", "top_p=0", "top_p=1.1", "repetition_penalty=0", "max_tokens=0",
     "seed=-1", "stop=['']", "cache=fulll", "temprature=1", "cache.size=0", "temperature=hot",
     "min_p=1.5", "typical_p=0", "logit_bias={a: hot}", "logprobs=-1", "logprobs_mode=cooked",
     "frequency_penalty=1e9", "min_tokens=-1", "order=[top_k]", "order=[top_q]"],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(word):
    with pytest.raises(SettingsError) as refused:
        load(word)
    assert word.partition("=")[0] in str(refused.value)


def test_unknown_key_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean “temperature”"):
        load("temprature=1")


def test_each_step_is_named_once():
    assert set(STEPS) == set(ORDER)
    assert (
        load("order=[top_p, typical_p, min_p, top_k, temperature, penalties]").order[0] == "top_p"
    )
    twice = "order=[top_k, top_k, penalties, temperature, top_p, min_p]"
    with pytest.raises(SettingsError, match="top_k is named 2 times, typical_p is named 0 times"):
        load(twice)


def test_a_text_that_may_not_end_before_it_must_is_refused():
    with pytest.raises(SettingsError, match="max_tokens"):
        load("min_tokens=9", "max_tokens=8")
    with pytest.raises(SettingsError, match="min_tokens"):
        load("min_tokens=300")


def test_a_bias_names_tokens_by_number_or_text():
    assert load('logit_bias={198: -5, " the": 1.5}').logit_bias == {"198": -5, " the": 1.5}
    with pytest.raises(SettingsError, match="logit_bias"):
        load("logit_bias={198: -500}")


def test_one_stop_text_may_be_written_alone():
    assert SamplingSettings.model_validate({"stop": "END"}).stop == ("END",)


def test_settings_survive_a_round_trip():
    values = {"cache": {"kind": "window", "size": 8}, "top_k": 3, "logit_bias": {"7": 1.0}}
    settings = SamplingSettings.model_validate(values)
    assert SamplingSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert SamplingSettings.model_validate_json(settings.model_dump_json()) == settings
