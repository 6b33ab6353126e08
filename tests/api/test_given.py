"""Settings given in Python: dotted and nested keys mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.api.given import MODES, layer_of, resolve
from coterie.foundation.errors import SettingsError


@pytest.mark.parametrize(
    "given",
    [
        {"a.b": 1, "a.c": {"kind": "x", "d": 2}},
        {"a": {"b": 1, "c": "x"}, "a.c.d": 2},
        {"a": {"c": {"d": 2}}, "a.b": 1, "a.c": "x"},
    ],
)
def test_dotted_and_nested_keys_mean_the_same(given):
    assert layer_of(given).values == {"a": {"b": 1, "c": {"kind": "x", "d": 2}}}


def test_the_last_one_wins_and_paths_are_texts():
    assert layer_of({"a": {"b": 1}, "a.b": Path("x")}).values == {"a": {"b": "x"}}
    assert layer_of({"a": {}}).values == {"a": {}}


def test_values_come_from_where_they_were_given():
    layer = layer_of({"model.norm": "layer", "train": {"steps": 5}, "train.prompts": ["a", "b"]})
    found = resolve("quickstart", [layer], "tiny")
    assert found.settings.model.norm.kind == "layer"
    assert found.settings.train.prompts == ("a", "b")
    assert found.origin(("train", "steps")) == "given in Python"


@pytest.mark.parametrize("key", ["", "a..b", 3])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(SettingsError, match="not the name"):
        layer_of({key: 1})


def test_a_mode_lies_over_the_preset_and_under_what_is_said():
    named = resolve("mymoe", [layer_of({"train.prefetch": 3})], "tiny", "memory")
    assert named.settings.train.activation_checkpointing
    assert named.settings.train.prefetch == 3
    assert named.origin(("train", "activation_checkpointing")) == "mode memory"
    fast = resolve("mymoe", [], "tiny", "speed").settings.train
    assert resolve("mymoe", [], "tiny").settings.train.activation_checkpointing
    assert (fast.activation_checkpointing, fast.compile) == (False, "auto")
    with pytest.raises(SettingsError, match="no mode “fast”; choices: memory, speed"):
        resolve("mymoe", [], "tiny", "fast")


def test_no_mode_touches_the_mathematics_of_training():
    plain = resolve("yinghub", [], "tiny").settings.train.model_dump()
    for mode in MODES:
        found = resolve("yinghub", [], "tiny", mode).settings.train.model_dump()
        for key in ("batch_size", "gradient_accumulation", "optimizer", "schedule", "precision"):
            assert found[key] == plain[key]
