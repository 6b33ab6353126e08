"""Old names are refused with the new one; what runs wrote is read as it is called now."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer, file_layer, load_settings, overrides_layer
from coterie.foundation.migration import migrated_settings, tensor_name
from coterie.model import DecoderSettings
from coterie.train.settings import RunSettings

MODEL = {"layers": 1, "width": 16, "context": 8, "vocab_size": 11}
MOE = {"feedforward": {"kind": "moe", "experts": [{"count": 2}], "experts_per_token": 1}}
RUNS = Path(__file__).parents[1] / "behaviour" / "old_runs"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model.feedforward.shared_body.width=4", "is now model.feedforward.shared_mlp"),
        ("model.feedforward.capacity=1.5", "is now model.feedforward.capacity_factor"),
        ("model.feedforward.compute=loop", "is now model.feedforward.kernel"),
        ("model.feedforward.experts.0.body.width=4", "is now model.feedforward.experts.0.mlp"),
        ("model.feedforward.experts.0.mlp.kind=swiglu", "now kind=gated activation=silu"),
        ("model.feedforward.experts.0.mlp=squared_relu", "now kind=mlp activation=relu_squared"),
        ("model.ahead.depth=1", "is now model.mtp"),
        ("model.arrangement=parallel", "is now model.block_layout"),
        ("model.structure.kinds={}", "is now model.additive"),
        ("train.accumulation=2", "is now train.gradient_accumulation"),
        ("train.recompute=true", "is now train.activation_checkpointing"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(word, told):
    layers = [Layer("base", {"model": MODEL | MOE}), overrides_layer([word])]
    with pytest.raises(SettingsError) as caught:
        load_settings(RunSettings, layers)
    assert told in caught.value.message


def test_a_dense_layers_old_key_is_refused_with_the_new_one():
    with pytest.raises(SettingsError, match=r"feedforward\.body: is now feedforward\.mlp"):
        words = overrides_layer(["feedforward.body.width=4"])
        load_settings(DecoderSettings, [Layer("base", MODEL), words])


@pytest.mark.parametrize("form", ["format1", "format2"])
def test_the_settings_of_old_runs_become_those_of_now(form):
    path = RUNS / form / "run" / "config.yaml"
    values = migrated_settings(yaml.safe_load(path.read_text()))
    model, train = values["model"], values["train"]
    moe = model["feedforward"]
    assert [pack["mlp"]["kind"] for pack in moe["experts"]] == ["gated", "deep"]
    assert moe["experts"][0]["mlp"]["activation"] == "silu"
    assert moe["shared_mlp"] == {
        "width": 8, "bias": False, "kind": "gated", "activation": "gelu"}  # fmt: skip
    assert moe["capacity_factor"] == 1.5
    assert model["blocks"]["dense"]["feedforward"]["mlp"]["activation"] == "relu_squared"
    assert model["blocks"]["dense"]["block_layout"] == {"kind": "sequential"}
    assert model["mtp"]["depth"] == 1
    assert model["additive"] == []
    assert train["gradient_accumulation"] == 2
    assert train["activation_checkpointing"] is True
    assert migrated_settings(values) == values
    # Every key and kind is known, also where the file is read as any run's is.
    plain = RunSettings.model_validate(values)
    assert load_settings(RunSettings, [file_layer(path)]).settings == plain


def test_structure_becomes_one_of_the_additive_embeddings():
    kinds = {"stage": {"opening": "<", "closing": ">"}}
    found = migrated_settings({"model": {"structure": {"kinds": kinds}}})
    assert found == {"model": {"additive": [{"kind": "structure", "kinds": kinds}]}}


def test_an_exact_activation_stays_exact_and_an_approximate_one_approximate():
    old = {"kind": "dense", "body": {"kind": "gelu", "approximate": "tanh"}}
    found = migrated_settings({"model": {"feedforward": old}})["model"]["feedforward"]
    assert found == {"kind": "dense", "mlp": {"kind": "mlp", "activation": "gelu_tanh"}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ahead.0.block.feedforward.body.gate", "mtp.0.block.feedforward.mlp.gate"),
        ("blocks.0.feedforward.body.down_bias", "blocks.0.feedforward.mlp.down_bias"),
        ("structure.weight", "additive.0.weight"),
        ("adamw.ahead.0.norm.weight.exp_avg", "adamw.mtp.0.norm.weight.exp_avg"),
        ("muon.structure.weight.momentum", "muon.additive.0.weight.momentum"),
        ("blocks.1.feedforward.experts.0.gate", "blocks.1.feedforward.experts.0.gate"),
        ("embedding.weight", "embedding.weight"),
    ],
)
def test_tensors_have_the_names_of_now(old, new):
    assert tensor_name(old) == new
    assert tensor_name(new) == new


def test_a_file_of_ones_own_is_not_migrated(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("train: {accumulation: 2}\n")
    with pytest.raises(SettingsError, match="gradient_accumulation"):
        load_settings(RunSettings, [Layer("base", {"model": MODEL}), file_layer(path)])
