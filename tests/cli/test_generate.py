"""`coterie generate`: what it prints where, how words are understood, and what it refuses."""

from __future__ import annotations

import io
import json

import pytest

from coterie.checkpoint import load_model
from coterie.cli import app
from coterie.generate import Engine, SamplingSettings

pytestmark = pytest.mark.usefixtures("tiny_run")


def written(*words: str, capsys) -> str:
    assert app.run(["generate", *words]) == 0
    return capsys.readouterr().out


def expected(prompt: str, **settings) -> str:
    loaded = load_model("tiny")
    engine = Engine(loaded.decoder, loaded.tokenizer)
    return engine.generate(prompt, SamplingSettings.model_validate(settings)).text


def test_the_text_alone_goes_to_standard_output(capsys):
    assert app.run(["generate", "tiny", "It was", "temperature=0", "max_tokens=9"]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected("It was", temperature=0, max_tokens=9) + "\n"
    assert "9 tokens" in shown.err
    assert "tokens/s" in shown.err
    assert "coterie evaluate tiny" in shown.err


def test_the_runs_own_settings_lie_below_the_words(capsys):
    assert written("latest", "It", capsys=capsys) == expected("It", max_tokens=7) + "\n"
    given = written("latest", "seed=5", "It", "seed=6", "cache=none", capsys=capsys)
    assert given == expected("It", max_tokens=7, seed=6) + "\n"


def test_unquoted_words_are_one_prompt(capsys):
    assert written("tiny", "It", "was", capsys=capsys) == expected("It was", max_tokens=7) + "\n"


def test_a_dash_reads_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("It was\n"))
    assert written("tiny", "-", capsys=capsys) == expected("It was", max_tokens=7) + "\n"


def test_without_a_prompt_a_new_text_begins(capsys):
    assert written("tiny", capsys=capsys) == expected("", max_tokens=7) + "\n"


def test_samples_are_those_of_the_following_seeds(capsys):
    out = written("tiny", "It", "seed=3", "--samples", "2", capsys=capsys)
    assert out == "".join(expected("It", max_tokens=7, seed=seed) + "\n" for seed in (3, 4))


def test_json_holds_tokens_and_logprobs(capsys):
    shown = json.loads(written("tiny", "It", "--json", "top_k=3", capsys=capsys))
    (sample,) = shown["samples"]
    assert shown["sampling"]["top_k"] == 3
    assert shown["step"] == 2
    assert "".join(token["text"] for token in sample["tokens"]) == sample["text"]
    assert all(token["logprob"] < 0 for token in sample["tokens"])
    assert sample["finish_reason"] == "length"
    assert len(sample["tokens"]) == 7


def test_notices_do_not_mix_with_the_text(capsys):
    assert app.run(["generate", "tiny", "It was a bright cold day 本"]) == 0
    shown = capsys.readouterr()
    assert "unknown to this model's tokenizer" in shown.err
    assert "the model sees the last 16" in shown.err
    assert "Note" not in shown.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny", "It", "temprature=1"], "did you mean “temperature”"),
        (["tiny", "It", "top_p=2", "top_k=0"], "2 problems"),
        (["tiny", "It", "cache=wndow"], "did you mean “window”"),
        (["tinny", "It"], "did you mean “tiny”"),
        ([], "Which run?"),
        (["tiny", "It", "--bogus"], "no flag --bogus"),
        (["tiny", "It", "--samples", "0"], "At least one sample"),
        (["tiny", "It", "--step", "9"], "no checkpoint of step 9"),
        (["tiny", "It", "--device", "nowhere"], "cannot be used here"),
    ],
)
def test_what_cannot_be_done_is_the_users_error(words, message, capsys):
    assert app.run(["generate", *words]) == 2
    shown = capsys.readouterr()
    assert message in " ".join(shown.err.split())
    assert shown.out == ""


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(capsys, places):
    model = places / "runs" / "tiny" / "checkpoints" / "step-00000002" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-9])
    assert app.run(["generate", "tiny", "It", "--json"]) == 0
    shown = capsys.readouterr()
    assert "step-00000002 is damaged" in " ".join(shown.err.split())
    assert json.loads(shown.out)["step"] == 1


def test_standard_input_that_is_not_text_is_refused(capsys, monkeypatch):
    raw = io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", raw)
    assert app.run(["generate", "tiny", "-"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_the_best_of_several_and_a_report_are_told(capsys):
    words = ("tiny", "It", "best_of=3", "report=true", "constraints=[{kind: forbid, texts: [e]}]")
    shown = json.loads(written(*words, "--json", capsys=capsys))
    (sample,) = shown["samples"]
    assert len(sample["scores"]) == 3
    assert sample["score"] == max(sample["scores"])
    assert sample["report"]["tokens"] == 7
    assert app.run(["generate", *words]) == 0
    said = capsys.readouterr()
    assert said.out == sample["text"] + "\n"
    assert "the best of 3" in said.err
    assert "Constraints removed" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["meter=iambic_pentameter"], "did you mean “metre”"),
        (["form=sonnet", "rhyme=AABB"], "sonnet rhymes ABABCDCDEFEFGG, not AABB"),
        (["verse.rhyme=ABAB", "rhyme=AABB"], "rhyme=AABB contradicts verse.rhyme=ABAB"),
        (["best_of=3", "temperature=0"], "3 times the same text"),
    ],
)
def test_what_contradicts_itself_is_told(words, told, capsys):
    assert app.run(["generate", "tiny", "It", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
