"""A model from Python: it does what the command line does, and says what it is."""

from __future__ import annotations

import inspect
import json
import math
from typing import get_type_hints

import pytest

import coterie
from coterie.api.model import Sampling
from coterie.cli.app import run as command
from coterie.foundation.errors import RunError, SettingsError, UserError
from coterie.generate import SamplingSettings

pytestmark = pytest.mark.usefixtures("runs")


@pytest.fixture(scope="module")
def model(trained):
    return coterie.load(trained / "tiny", device="cpu")


def test_generate_returns_the_text_that_the_command_line_writes(model, capsys):
    text = model.generate("It was", max_tokens=9, temperature=0)
    assert command(["generate", "tiny", "It was", "max_tokens=9", "temperature=0", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["samples"][0]
    assert str(text) == f"{text}" == shown["text"]
    assert list(text.tokens) == [each["token"] for each in shown["tokens"]]
    assert list(text.logprobs) == [each["logprob"] for each in shown["tokens"]]
    assert text.finish_reason == "length"
    assert model.tokenizer.decode(text.tokens) == str(text)


def test_samples_are_a_list_and_the_runs_own_settings_hold(model):
    texts = model.generate("It", samples=2, seed=3, min_tokens=5)
    assert [len(each.tokens) for each in texts] == [5, 5]
    assert str(texts[1]) == str(model.generate("It", seed=4, min_tokens=5))
    assert len(model.generate("It", samples=1)) == 1


def test_streamed_pieces_are_texts_and_add_up(model):
    pieces = list(model.stream("It", temperature=0, max_tokens=8))
    text = model.generate("It", temperature=0, max_tokens=8)
    assert "".join(pieces) == str(text)
    assert tuple(piece.token for piece in pieces) == text.tokens
    assert [piece.finish_reason for piece in pieces] == [None] * 7 + ["length"]


def test_a_score_is_a_perplexity_with_every_token(model, tmp_path, capsys):
    score = model.score("It was a bright day.")
    (tmp_path / "a.txt").write_text("It was a bright day.")
    assert command(["evaluate", "tiny", str(tmp_path / "a.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] == pytest.approx(score.perplexity)
    assert "".join(text for text, _ in score.token_logprobs) == "It was a bright day."
    mean = -sum(each for _, each in score.token_logprobs) / score.tokens
    assert float(score) == pytest.approx(math.exp(mean))
    assert "nats per token" in repr(score)


def test_several_texts_are_scored_side_by_side(model):
    both = model.score(["It was", "a bright day."], stride=4)
    assert [each.tokens for each in both] == [6, 13]
    alone = model.score("a bright day.", stride=4)
    assert both[1].nats == pytest.approx(alone.nats)
    assert model.score("a bright day.", window=3).nats != pytest.approx(alone.nats)


def test_every_sampling_setting_can_be_named_and_completed_by_editors():
    assert set(get_type_hints(Sampling)) == set(SamplingSettings.model_fields)


@pytest.mark.parametrize("write", ["generate", "stream"])
def test_an_unknown_keyword_leads_to_the_nearest(model, write):
    with pytest.raises(SettingsError, match="did you mean “temperature”"):
        getattr(model, write)("It", temprature=0)


def test_a_model_tells_what_it_is(model):
    assert model.settings.train.steps == 4
    assert model.step == 4
    assert not model.decoder.training
    assert repr(model).startswith("<Model tiny, step 4: ")
    assert "active per token" in model._repr_html_()


def test_foreign_text_is_escaped_in_a_notebook(model):
    for shown in (model.generate("<b>x"), model.score("<b>It")):
        assert "<b>" not in shown._repr_html_()
        assert "&lt;" in shown._repr_html_()


@pytest.mark.parametrize(
    ("target", "error", "told"),
    [("tinny", RunError, "did you mean “tiny”"), ("hf", UserError, "coterie model import hf"),
     ("x.gguf", UserError, "coterie model import x.gguf")],
)  # fmt: skip
def test_what_cannot_be_loaded_is_told(target, error, told, places):
    (places / "hf").mkdir()
    (places / "hf" / "config.json").write_text("{}")
    (places / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(error, match=told):
        coterie.load(target)


def test_checkpoints_are_loaded_by_step_and_by_path(trained):
    with pytest.raises(UserError, match="no checkpoint of step 9"):
        coterie.load("tiny", step=9)
    path = next((trained / "tiny" / "checkpoints").glob("step-*"))
    assert coterie.load(path).name == "tiny"


def test_the_signature_says_what_can_be_asked_for():
    parameters = inspect.signature(coterie.load).parameters
    assert list(parameters) == ["target", "step", "device", "weights"]
