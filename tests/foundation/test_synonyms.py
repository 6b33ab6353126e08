"""Words of other tools lead to the names here, and every name in the table exists."""

from __future__ import annotations

import pytest

from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.foundation.schema import Place, Shape, below
from coterie.foundation.synonyms import SYNONYMS, meant_by
from coterie.generate import SamplingSettings
from coterie.presets import preset_layers
from coterie.train.settings import RunSettings

PRESET = preset_layers("quickstart")


def refuse(word: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(RunSettings, [*PRESET, overrides_layer([word])])
    return caught.value.message


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("num_epochs=3", "train.epochs"),
        ("lr=3e-4", "train.optimizer.learning_rate"),
        ("train.lr=3e-4", "train.optimizer.learning_rate"),
        ("train.optimizer.lr=3e-4", "learning_rate"),
        ("learning_rate=3e-4", "train.optimizer.learning_rate"),
        ("batch=8", "train.batch_size"),
        ("n_layer=2", "model.layers"),
        ("model.num_hidden_layers=2", "layers"),
        ("n_head=2", "model.attention.heads"),
        ("hidden_size=2", "model.width"),
        ("d_model=2", "model.width"),
        ("dropout_rate=0.1", "model.dropout"),
        ("num_experts=4", "model.feedforward.experts.0.count"),
        ("seq_len=4", "model.context"),
        ("block_size=4", "model.context"),
        ("max_length=4", "model.context” or “sample.max_tokens"),
        ("top-p=0.9", "sample.top_p"),
        ("sample.topP=0.9", "top_p"),
        ("max_new_tokens=4", "sample.max_tokens"),
        ("gradient_accumulation_steps=4", "train.gradient_accumulation"),
        ("train.optimizer.weight-decay=1", "weight_decay"),
        ("learning_rte=1", "train.optimizer.learning_rate"),
        ("model.norm=layernorm", "layer"),
        ("train.precision=bf16", "bfloat16"),
        ("train.optimizer=adam", "adamw"),
    ],
)
def test_words_of_other_tools_name_the_key(word, key):
    message = refuse(word)
    assert f"did you mean “{key}" in message
    assert word.partition("=")[0] in message


def test_names_of_another_kind_are_proposed_where_only_it_has_them():
    with pytest.raises(SettingsError, match=r"“model\.feedforward\.experts\.0\.count”"):
        load_settings(RunSettings, [*preset_layers("gpt2"), overrides_layer(["num_experts=4"])])


def test_only_names_of_the_settings_at_hand_are_proposed():
    with pytest.raises(SettingsError, match="did you mean “max_tokens”") as caught:
        load_settings(SamplingSettings, [overrides_layer(["max_length=4"])])
    assert "context" not in caught.value.message


def _exists(key: str) -> bool:
    """Whether some choice of kinds has a key."""
    places = [Place(Shape(model=RunSettings))]
    for part in key.split("."):
        inner = []
        for place in places:
            union = place.shape.union
            models = list(union.members.values()) if union else [place.shape.model]
            inner += [found for model in models if (found := below(place, model, part))]
        places = inner
    return bool(places)


def test_every_key_of_the_table_exists():
    keys = {key for keys in SYNONYMS.values() for key in keys if "." in key and key[0] != "-"}
    assert len(keys) > 50
    assert sorted(key for key in keys if not _exists(key)) == []


def test_an_empty_name_is_near_nothing():
    assert nearest("", ["", "text"]) == "choices: “”, text"
    assert "did you mean" not in nearest("-", ["", "a"])
    assert nearest("x", []) == "there is nothing to choose from"
    assert "\x1b" not in nearest("a\x1b", ["a\x1b[2J"])


def test_spelling_decides_before_synonyms():
    assert meant_by("Top-P", ["top_p", "top_k"]) == ["top_p"]
    assert meant_by("depth", ["depth", "layers"]) == ["depth"]
    assert meant_by("", ["", "a"]) == []
