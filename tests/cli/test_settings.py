"""`coterie settings`: keys explained, and the schema for editors written."""

from __future__ import annotations

import json

from coterie.cli.app import run as coterie


def test_without_a_key_the_sections_are_shown(capsys):
    assert coterie(["settings"]) == 0
    shown = capsys.readouterr().out
    for part in ("data", "  source", "model", "train", "  steps", "optimizer steps"):
        assert part in shown


def test_a_key_is_explained(capsys):
    assert coterie(["settings", "train.optimizer"]) == 0
    shown = capsys.readouterr()
    assert "muon" in shown.out
    assert "Set by presets" in shown.out
    assert "coterie settings train.optimizer." in shown.err
    assert coterie(["settings", "train.steps", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["meanings"][0]["type"] == "integer ≥ 1"
    assert "gpt2" in told["presets"]


def test_all_keys_as_json(capsys):
    assert coterie(["settings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train.steps"][0]["description"] == "optimizer steps"


def test_a_schema_is_written(places, capsys):
    assert coterie(["settings", "--json-schema", "schema.json"]) == 0
    schema = json.loads((places / "schema.json").read_text())
    assert {"model", "train", "scales"} <= set(schema["properties"])
    assert "Wrote schema.json" in capsys.readouterr().out


def test_an_unknown_key_is_the_users_error(capsys):
    assert coterie(["settings", "train.stepz"]) == 2
    assert "did you mean" in capsys.readouterr().err
