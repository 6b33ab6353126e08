"""Settings given in Python: dotted and nested keys mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.api.given import layer_of, resolve
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
