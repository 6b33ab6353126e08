"""`coterie model show` and the columns of counts, as people and programs read them."""

from __future__ import annotations

import json

import pytest
import torch

from coterie.checkpoint import load_model
from coterie.cli.app import run as call
from coterie.foundation.runs import runs_root
from coterie.model import DecoderSettings, count


def shown(capsys, *words: str) -> dict:
    assert call(["model", "show", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_latest_and_a_checkpoint_show_the_same_model(tiny_run, capsys):
    found = shown(capsys, "tiny")
    settings = load_model("tiny").decoder.settings
    counts = count(settings)
    assert found["parameters"] == counts.parameters
    assert found["flops_per_token"] == counts.flops_per_token(16)
    assert found["training_flops_per_token"] == 3 * counts.flops_per_token(16)
    assert found["decoding_flops"] == counts.decoding_flops(16) > found["flops_per_token"]
    assert found["cache_bytes_per_token"] == 2 * 2 * 16 * 4
    assert DecoderSettings.model_validate(found["settings"]) == settings
    assert found["checkpoint"].endswith("step-00000002")
    checkpoint = runs_root() / "tiny" / "checkpoints" / "step-00000001"
    assert shown(capsys, "latest") == found
    earlier = shown(capsys, str(checkpoint))
    assert earlier == found | {"checkpoint": str(checkpoint)}
    assert shown(capsys, "tiny", "--step", "1")["tree"] == found["tree"]


def test_the_tree_has_its_columns(tiny_run, capsys):
    assert call(["model", "show", "tiny"]) == 0
    said = capsys.readouterr()
    head = next(line for line in said.out.splitlines() if line.startswith("part"))
    assert head.split() == ["part", "parameters", "active", "FLOPs/token", "cache", "B/token"]
    rows = {line.split()[0]: line.split() for line in said.out.splitlines() if line.strip()}
    total = rows["decoder"]
    parameters = sum(p.numel() for p in load_model("tiny").decoder.parameters())
    assert total[1] == f"{parameters:,}"
    assert "256" in total  # bytes of cache: 2 layers, key and value, 16 channels, 4 bytes
    assert "training per token" in said.out
    assert "decoding a token" in said.out
    assert "coterie generate tiny" in said.err


def test_tensors_are_listed_with_role_shape_and_type(tiny_run, capsys):
    tensors = {row["name"]: row for row in shown(capsys, "tiny", "--tensors")["tensors"]}
    state = load_model("tiny").decoder.state_dict()
    assert {name: row["shape"] for name, row in tensors.items()} == {
        name: list(tensor.shape) for name, tensor in state.items()
    }
    assert tensors["embedding.weight"]["role"] == "embedding"
    assert tensors["blocks.0.feedforward.router.weight"]["role"] == "router"
    assert tensors["blocks.1.attention.query"]["dtype"] == "float32"
    assert call(["model", "show", "tiny", "--tensors"]) == 0
    assert "blocks.1.attention.query" in capsys.readouterr().out


def test_a_preset_is_shown_at_its_scale_and_with_changes(capsys):
    found = shown(capsys, "quickstart", "scale=tiny", "model.layers=3", "--tensors")
    assert found["checkpoint"] is None
    assert found["settings"]["layers"] == 3
    roles = {row["name"]: row["role"] for row in found["tensors"]}
    assert roles["embedding.table"] == "table"
    assert roles["blocks.2.feedforward.balance.selection_bias"] == "buffer"
    parameters = sum(
        int(torch.tensor(row["shape"]).prod())
        for row in found["tensors"] if row["role"] != "buffer"
    )  # fmt: skip
    assert parameters == found["parameters"]


def test_presets_show_prints_the_same_counts(capsys):
    assert call(["presets", "show", "quickstart", "scale=tiny", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    found = shown(capsys, "quickstart", "scale=tiny")
    assert counts == {key: found[key] for key in counts}
    assert {"flops", "cache_bytes", "active_parameters"} <= set(counts["tree"][0])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tinny"], "did you mean “tiny”"),
        (["quikstart"], "did you mean “quickstart”"),
        (["tiny", "model.layers=3"], "Only presets can be changed"),
        ([], "Which model? None was named."),
        (["tiny", "--step", "9"], "no checkpoint of step 9"),
    ],
)
def test_says_what_it_cannot_show(words, says, tiny_run, capsys):
    assert call(["model", "show", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_shown_from_its_settings(tiny_run, capsys):
    for path in (runs_root() / "tiny" / "checkpoints").iterdir():
        path.rename(runs_root() / path.name)
    found = shown(capsys, "tiny")
    assert found["checkpoint"] is None
    assert found["parameters"] > 0
