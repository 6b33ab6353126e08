"""Presets: exact counts, and each one trains, resumes and writes at its tiny scale."""

from __future__ import annotations

import pytest
import torch

from coterie.checkpoint import load_model
from coterie.foundation.errors import Interrupted, SettingsError
from coterie.foundation.event_log import read_events
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.generate import Engine, SamplingSettings
from coterie.language.drama import DRAMA_TAGS
from coterie.model import count
from coterie.presets import preset_layers, preset_names, preset_scales, preset_text
from coterie.train import RunSettings, train
from coterie.train.events import Sampled, StepDone

PLAY = (
    """<PLAY>The Test</PLAY>
<ACT>I</ACT>
<SCENE>I. A room.</SCENE>
<SPEAKER>FIRST</SPEAKER>
The quality of testing is not strained,
It droppeth as the gentle rain from heaven
<SPEAKER>SECOND</SPEAKER>
Upon the place beneath: it is twice blest.
"""
    * 60
)


def settings(name: str, scale: str | None, *words: str) -> RunSettings:
    layers = [*preset_layers(name, scale), overrides_layer(words)]
    return load_settings(RunSettings, layers).settings


@pytest.mark.parametrize(("name", "parameters"), [("yinggem", 133_957_969), ("gpt2", 124_439_808)])
def test_full_size_presets_have_exactly_the_published_parameters(name, parameters):
    model = settings(name, None, "model.vocab_size=50257").model
    assert count(model).parameters == parameters
    with torch.device("meta"):
        built = model.build()
    assert sum(p.numel() for p in built.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "vocab_size", "parameters", "active"),
    [
        ("s15era", 49_152, 324_640_256, 147_693_056),  # published as about 325 M
        ("blues", 200_019, 423_846_912, 253_940_736),
        ("mymoe", 16_384, 147_174_144, 90_551_040),
        ("yinghub", 50_272, 14_563_456, 7_742_464),
    ],
)
def test_full_size_mixtures_count_what_they_build(name, vocab_size, parameters, active):
    model = settings(name, None, f"model.vocab_size={vocab_size}").model
    counts = count(model)
    assert (counts.parameters, counts.active_parameters) == (parameters, active)
    with torch.device("meta"):
        assert sum(p.numel() for p in model.build().parameters()) == parameters


def test_gpt2_at_full_size_agrees_with_transformers_own_count():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    model = settings("gpt2", None, "model.vocab_size=50257").model
    assert count(model).parameters == theirs.num_parameters()


@pytest.mark.parametrize("name", preset_names())
def test_every_scale_resolves_and_names_itself(name):
    for scale in preset_scales(name):
        resolved = settings(name, scale)
        assert len(resolved.description) > 20


def test_tiny_scales_keep_the_architecture():
    for name in preset_names():
        full, tiny = settings(name, None).model, settings(name, "tiny").model
        assert type(full.attention) is type(tiny.attention)
        assert type(full.feedforward) is type(tiny.feedforward)
        assert type(full.position) is type(tiny.position)
        assert full.norm == tiny.norm
        assert full.head == tiny.head


def test_the_quickstart_knows_every_tag_of_the_grammar():
    assert settings("quickstart", None).tokenizer.special_tokens == DRAMA_TAGS


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_trains_resumes_and_writes_at_tiny_scale(name, tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    small = settings(
        name, "tiny", f"data.source={tmp_path / 'play.txt'}", "train.steps=6",
        "train.batch_size=4", "train.evaluate_every=3", "train.checkpoint_every=3",
        "tokenizer={kind: characters}", "sample.max_tokens=8",
    )  # fmt: skip
    whole = train(small, RunDirectory.create(runs_root(), "whole"), preset=name)

    def stop(event):
        if isinstance(event, StepDone) and event.step == 4:
            raise KeyboardInterrupt

    parts = RunDirectory.create(runs_root(), "parts")
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(small, parts, preset=name, observers=[stop])
    train(small, parts, preset=name, resume=True)

    straight, resumed = load_model("whole"), load_model("parts")
    for key, value in straight.decoder.state_dict().items():
        assert torch.equal(value, resumed.decoder.state_dict()[key]), key
    losses = [event.loss for event in read_events(parts.events) if isinstance(event, StepDone)]
    assert losses[-1] == whole.loss
    assert any(isinstance(event, Sampled) for event in read_events(parts.events))
    written = Engine(straight.decoder, straight.tokenizer).generate(
        "The ", SamplingSettings(max_tokens=8, temperature=0)
    )
    assert len(written.tokens) <= 8


def test_unknown_presets_and_scales_get_the_nearest():
    with pytest.raises(SettingsError, match="did you mean “quickstart”"):
        preset_layers("quickstrat")
    with pytest.raises(SettingsError, match="did you mean “tiny”"):
        preset_layers("gpt2", "tiney")
    with pytest.raises(SettingsError):
        preset_text("nothing")


def test_a_file_of_ones_own_serves_as_a_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(preset_text("gpt2"))
    mine = load_settings(RunSettings, preset_layers(str(file), "tiny")).settings
    assert mine == settings("gpt2", "tiny")
