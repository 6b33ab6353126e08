"""`coterie align grpo` and its like: words become rewards and settings."""

import json

import pytest

from coterie.cli.app import run
from coterie.cli.reinforce import read_reward


def test_a_reward_is_told_with_its_settings_in_one_word():
    assert read_reward("metre") == {"kind": "metre"}
    assert read_reward("fluency:weight=0.2,clip=[-4,0],normalise=true") == {
        "kind": "fluency", "weight": 0.2, "clip": [-4, 0], "normalise": True,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["grpo", "reinforce", "ppo", "rejection"])
def test_a_dry_run_shows_what_would_be_run(kind, tiny_run, places, capsys):
    prompts = places / "prompts.txt"
    prompts.write_text("It\nwas\nbright\n")
    words = [
        "align", kind, "tiny", "--reward", "pattern:regex=e", "--reward", "repetition:weight=0.5",
        f"align.prompts={prompts}", "align.rollout.max_tokens=4", "--dry-run", "--json",
    ]  # fmt: skip
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)["settings"]
    assert [each["kind"] for each in found["align"]["rewards"]] == ["pattern", "repetition"]
    assert found["align"]["rewards"][1]["weight"] == 0.5
    assert (found["model"]["value"] is not None) == (kind == "ppo")
    assert found["train"]["batch_size"] == (16 if kind == "rejection" else 64)
    assert found["train"]["prompts"] == ["bright\n"]


def test_a_reward_that_is_none_is_refused_with_the_nearest(tiny_run, capsys):
    assert run(["align", "grpo", "tiny", "--reward", "meter", "--dry-run"]) == 2
    assert "“metre”" in capsys.readouterr().err
    assert run(["align", "grpo", "tiny", "--dry-run"]) == 2
    assert "rewards" in capsys.readouterr().err


def test_texts_that_the_context_cannot_hold_are_refused_before_a_run_is_made(
    tiny_run, places, capsys
):
    prompts = places / "prompts.txt"
    prompts.write_text("It\nwas\nbright\n")
    words = ["--reward", "length", f"align.prompts={prompts}", "align.rollout.max_tokens=64"]
    assert run(["align", "grpo", "tiny", *words, "--dry-run"]) == 2
    assert "longer than the model's context of 16" in capsys.readouterr().err


def test_pairs_are_written_and_learnt_from(tiny_run, places, capsys):
    prompts = places / "prompts.txt"
    prompts.write_text("It\nwas\nbright\nand\ncold\n")
    made = places / "pairs.jsonl"
    words = ["align.rollout.max_tokens=4", f"align.prompts={prompts}", "--count", "4"]
    asked = ["align", "pairs", "tiny", "--reward", "pattern:regex='[a-m]'", "--out", str(made)]
    assert run([*asked, *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] == len(made.read_text().splitlines()) > 0
    assert told["margin"] == 1.0
    assert run([*asked, *words]) == 2
    assert "exists already" in capsys.readouterr().err
    small = ["align.template=continuation", "train.steps=1", "train.batch_size=2",
             "align.valid_fraction=0", "--json"]  # fmt: skip
    for kind, name in (("dpo", "tiny-dpo"), ("reward-model", "tiny-reward-model")):
        assert run(["align", kind, "tiny", str(made), *small]) == 0
        assert json.loads(capsys.readouterr().out)["run"] == name
