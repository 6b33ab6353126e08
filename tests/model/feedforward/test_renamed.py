"""Old names are refused with the new one; runs that hold them are read as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.model import DecoderSettings
from coterie.model.feedforward.renamed import TENSORS, migrated

BASE = Layer("base", {"layers": 1, "width": 16, "context": 8, "vocab_size": 11})
MOE = {"feedforward": {"kind": "moe", "experts": [{"count": 2}], "experts_per_token": 1}}
RUNS = Path(__file__).parents[2] / "behaviour" / "old_runs"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "feedforward.shared_body.width=4",
            "is now feedforward.shared_mlp",
        ),
        ("feedforward.capacity=1.5", "is now feedforward.capacity_factor"),
        ("feedforward.compute=loop", "is now feedforward.kernel"),
        ("feedforward.experts.0.body.width=4", "is now feedforward.experts.0.mlp"),
        ("feedforward.experts.0.mlp.kind=swiglu", "“swiglu” is now kind=gated activation=silu"),
        ("feedforward.experts.0.mlp=squared_relu", "is now kind=mlp activation=relu_squared"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(word, told):
    with pytest.raises(SettingsError) as caught:
        load_settings(DecoderSettings, [BASE, Layer("moe", MOE), overrides_layer([word])])
    assert told in caught.value.message


def test_a_dense_layers_old_key_is_refused_with_the_new_one():
    with pytest.raises(SettingsError, match=r"feedforward\.body: is now feedforward\.mlp"):
        load_settings(DecoderSettings, [BASE, overrides_layer(["feedforward.body.width=4"])])


@pytest.mark.parametrize("form", ["format1", "format2"])
def test_the_settings_of_old_runs_become_those_of_now(form):
    model = yaml.safe_load((RUNS / form / "run" / "config.yaml").read_text())["model"]
    moe = migrated(model["feedforward"])
    assert [pack["mlp"]["kind"] for pack in moe["experts"]] == ["gated", "deep"]
    assert moe["experts"][0]["mlp"]["activation"] == "silu"
    assert moe["shared_mlp"] == {
        "width": 8, "bias": False, "kind": "gated", "activation": "gelu"}  # fmt: skip
    assert moe["capacity_factor"] == 1.5
    dense = migrated(model["blocks"]["dense"]["feedforward"])
    assert dense["mlp"]["activation"] == "relu_squared"
    for values in (moe, dense):  # every key and kind is known
        DecoderSettings.model_validate(dict(BASE.values) | {"feedforward": values})
    assert migrated({"kind": "dense", "body": {"kind": "gelu", "approximate": "tanh"}}) == {
        "kind": "dense", "mlp": {"kind": "mlp", "activation": "gelu_tanh"}}  # fmt: skip


def test_old_tensor_names_become_those_of_the_built_layer():
    settings = DecoderSettings.model_validate(dict(BASE.values))
    names = [name for name, _ in settings.build().named_parameters()]
    ((old, new),) = TENSORS.items()
    assert f"blocks.0{new}gate" in names
    assert f"blocks.0{old}gate".replace(old, new) in names
