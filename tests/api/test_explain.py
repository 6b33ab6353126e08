"""What `coterie settings` says is what the settings are."""

from __future__ import annotations

import pytest

from coterie.api.explain import explain, meanings
from coterie.foundation.errors import SettingsError
from coterie.train.optimizer import Muon
from coterie.train.settings import RunSettings, TrainSettings


def test_every_key_says_what_it_is_and_what_may_stand_there():
    bare = [key for key, found in meanings().items() for each in found if not each.description]
    assert bare == []
    vague = [key for key, found in meanings().items() for each in found if each.type == "any value"]
    assert vague == []


def test_every_choice_of_a_union_has_a_line():
    for found in meanings().values():
        for meaning in found:
            lines = [line for _, line in meaning.choices]
            assert all(lines) or not any(lines), meaning.key


def test_a_plain_key():
    found = explain("train.steps")
    (meaning,) = found.meanings
    assert meaning.type == "integer ≥ 1"
    assert meaning.default == TrainSettings().steps
    assert found.presets["quickstart"] == explain("steps").presets["quickstart"] > 0
    assert found.presets["quickstart scale=tiny"] < found.presets["quickstart"]


def test_a_union_lists_its_kinds_with_what_they_are():
    (meaning,) = explain("train.optimizer").meanings
    lines = dict(meaning.choices)
    assert {"adamw", "muon"} <= set(lines)
    assert lines["muon"].rstrip(".") in " ".join(Muon.__doc__.split())
    assert meaning.default["kind"] == RunSettings.model_fields["train"].default.optimizer.kind


def test_a_key_of_some_kinds_names_them():
    (meaning, *_) = explain("train.optimizer.momentum").meanings
    assert meaning.kinds == ("train.optimizer: muon",)
    kinds = [kind for each in explain("model.feedforward.experts.0.count").meanings
             for kind in each.kinds]  # fmt: skip
    assert "model.feedforward: moe" in kinds


@pytest.mark.parametrize(
    ("key", "told"),
    [("train.stepz", "did you mean “steps”|did you mean “train.steps”"), ("modl", "model"),
     ("lr_rate_x", "no setting"), ("width", "may be any of")],
)  # fmt: skip
def test_unknown_keys_get_the_nearest(key, told):
    with pytest.raises(SettingsError, match=told):
        explain(key)


def test_what_every_layer_has_is_meant_before_what_one_may_vary():
    assert explain("feedforward.mlp").key == "model.feedforward.mlp"


def test_every_choice_says_what_it_is():
    told = {told for each in meanings().values() for one in each for _, told in one.choices}
    assert "Gated MLPs: three matrices, one of them gating." in told
    assert not [each for each in told if each.startswith("Settings")]
