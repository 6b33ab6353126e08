"""Scaled rotary positions: equal within the original context and far beyond it, both ways."""

from __future__ import annotations

import json

import pytest
import torch

from coterie.exchange.huggingface import export_folder, import_folder
from coterie.exchange.imported import ExchangeError
from coterie.generate.cache import FullCacheSettings
from coterie.generate.session import cache_specs
from coterie.model import DecoderSettings
from coterie.model.context import ForwardContext

YARN = {
    "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
    "original_max_position_embeddings": 24,
}  # fmt: skip
MSCALE = YARN | {"mscale": 0.8, "mscale_all_dim": 1.3, "beta_fast": 16, "beta_slow": 2}
SCALED = {
    "llama theta": ({"rope_type": "default", "rope_theta": 300.0}, 24),
    "llama linear": ({"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}, 24),
    "llama dynamic": ({"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}, 24),
    "llama yarn": (YARN, 96),
    "llama yarn mscale": (MSCALE, 96),
    "llama yarn attention_factor": (YARN | {"attention_factor": 1.4, "truncate": False}, 96),
    "llama llama3": (
        {
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 24,
        },
        96,
    ),
    "mixtral yarn": (YARN, 96),
    "deepseek_v2 yarn mscale": (MSCALE, 96),
    "deepseek_v3 yarn mscale": (MSCALE, 96),
    "deepseek_v3 yarn": (YARN, 96),
    "glm4_moe partial linear": (
        {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0, "partial_rotary_factor": 0.33},
        24,
    ),
}  # fmt: skip
every_scaling = pytest.mark.parametrize(
    ("kind", "rope", "context"),
    [pytest.param(name.split()[0], *given, id=name) for name, given in SCALED.items()],
)
HEADS = {
    "mixtral": {"head_dim": 8},
    "glm4_moe": {"head_dim": 20},
}  # a scaling asks for it


def difference(one, other):
    return (one - other).abs().max().item()


@every_scaling
@torch.no_grad()
def test_scaled_positions_are_theirs_at_every_length(
    kind, rope, context, foreign, double, load, tokens, tmp_path
):
    with double():
        changes = {"rope_parameters": dict(rope), "max_position_embeddings": context}
        theirs = foreign(kind, **changes, **HEADS.get(kind, {})).double()
        theirs.save_pretrained(tmp_path / "theirs")
        imported = import_folder(tmp_path / "theirs", dtype=None)
        assert imported.notes == ()
        export_folder(imported.decoder, None, tmp_path / "ours", dtype=torch.float64)
        back = load(tmp_path / "ours", dtype=torch.float64)
        for length in (24, 25, 80):
            x = tokens(1, length)
            expected = theirs(x).logits
            assert difference(imported.decoder(x).logits, expected) <= 1e-11
        assert difference(back(x).logits, expected) <= 1e-11
        if imported.decoder.position.stable is None:
            cache = FullCacheSettings().build(cache_specs(imported.decoder))
            pieces = [
                imported.decoder(each, context=ForwardContext(cache=cache)).logits
                for each in x.split(30, dim=1)
            ]
            assert difference(torch.cat(pieces, 1), expected) <= 1e-11


@torch.no_grad()
def test_older_names_mean_the_same(foreign, tokens, tmp_path):
    model = foreign("llama", rope_parameters=dict(YARN), max_position_embeddings=96)
    model.save_pretrained(tmp_path)
    x = tokens(1, 60)
    expected = import_folder(tmp_path).decoder(x).logits
    config = json.loads((tmp_path / "config.json").read_text())
    values = config.pop("rope_parameters")
    config["rope_theta"] = values.pop("rope_theta")
    config["rope_scaling"] = {"type": values.pop("rope_type"), **values}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(import_folder(tmp_path).decoder(x).logits, expected)


@torch.no_grad()
def test_a_larger_base_says_ntk_scaling_exactly(load, tokens, tmp_path):
    settings = DecoderSettings.model_validate({
        "layers": 2, "width": 32, "context": 24, "vocab_size": 61, "attention": "grouped",
        "position": {"kind": "rotary", "scaling": {"kind": "ntk", "factor": 4.0}},
    })  # fmt: skip
    decoder = settings.build(torch.Generator().manual_seed(1)).eval()
    export_folder(decoder, None, tmp_path / "out")
    x = tokens(1, 60)
    assert difference(load(tmp_path / "out")(x).logits, decoder(x).logits) <= 2e-5


@pytest.mark.parametrize(
    ("rope", "reason"),
    [
        ({"rope_type": "longrope", "short_factor": [1.0]}, "'longrope' is not known"),
        ({"rope_type": "linear"}, "'linear' lacks 'factor'"),
        ({"rope_type": "linear", "factor": "much"}, "could not convert"),
        ({"rope_type": "linear", "factor": 0.5}, "greater than or equal to 1"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"full_attention": {"rope_type": "default"}}, "differ by layer"),
        ([1], "must be an object"),
    ],
)
def test_positions_that_cannot_be_said_are_refused(rope, reason, foreign, tmp_path):
    foreign("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"rope_parameters": rope}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExchangeError, match=reason):
        import_folder(tmp_path)


LINEAR = {"rope_type": "linear", "factor": 2.0}
OTHER = {"rope_type": "linear", "factor": 3.0, "rope_theta": 77.0}
CONFLICTS = {
    "both objects": {"rope_scaling": LINEAR, "rope_parameters": OTHER},
    "both objects and a base": {
        "rope_scaling": LINEAR, "rope_parameters": OTHER, "rope_theta": 300.0
    },
    "an empty object": {"rope_scaling": {}, "rope_parameters": OTHER},
    "a base within and beside": {"rope_parameters": OTHER, "rope_theta": 300.0},
    "a base within the older object and beside": {"rope_scaling": OTHER, "rope_theta": 300.0},
    "two names of the type": {"rope_scaling": OTHER | {"type": "yarn"}},
    "an original context within and beside": {
        "rope_scaling": YARN, "original_max_position_embeddings": 48
    },
    "an original context beside alone": {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
        "original_max_position_embeddings": 48,
    },
}  # fmt: skip


@pytest.mark.parametrize("said", CONFLICTS.values(), ids=CONFLICTS)
@torch.no_grad()
def test_of_two_places_the_one_holds_that_transformers_takes(said, foreign, load, tokens, tmp_path):
    foreign("llama", max_position_embeddings=96).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("rope_parameters", "rope_scaling", "rope_theta"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    imported, theirs = import_folder(tmp_path), load(tmp_path)
    taken = theirs.config.rope_parameters
    assert imported.decoder.settings.position.theta == taken["rope_theta"]
    x = tokens(1, 60)
    assert difference(imported.decoder(x).logits, theirs(x).logits) <= 2e-5


@pytest.mark.parametrize("place", ["within", "beside"])
def test_a_partly_turned_head_is_said_within_first(place, foreign, tmp_path):
    foreign("glm4_moe", **HEADS["glm4_moe"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    rope = {"rope_type": "default", "rope_theta": 500.0}
    if place == "within":
        rope["partial_rotary_factor"] = 0.4
    said = {"rope_parameters": rope, "partial_rotary_factor": 0.8}
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    fraction = import_folder(tmp_path).decoder.settings.position.fraction
    assert fraction == (0.4 if place == "within" else 0.8)
