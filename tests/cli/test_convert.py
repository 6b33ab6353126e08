"""`coterie model convert`: every verb reads one file and several, and finds the same in both."""

from __future__ import annotations

import json

from coterie.cli.app import run as call
from coterie.foundation.runs import runs_root


def told(capsys, *words: str) -> dict:
    assert call([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words: str) -> str:
    assert call(list(words)) == 2
    return " ".join(capsys.readouterr().err.split())


def used(capsys, name: str) -> list[object]:
    """Return what the verbs that read a checkpoint say and write."""
    written = told(capsys, "generate", "tiny", "It was", "temperature=0", "max_tokens=4")
    shown = told(capsys, "model", "show", "tiny", "--tensors")
    del shown["weights"]["bytes_on_disk"]
    scored = told(capsys, "evaluate", "tiny", "--text", "It was a day")["nats_per_token"]
    told(capsys, "model", "quantise", "tiny", "--weights", "int8", "--name", name)
    small = runs_root() / name / "checkpoints" / "step-00000000" / "model.safetensors"
    shown["tensors"].sort(key=lambda row: row["name"])
    return [written["samples"][0]["text"], shown, scored, small.read_bytes()]


def test_every_verb_finds_in_several_files_what_it_finds_in_one(tiny_run, capsys):
    checkpoints = runs_root() / "tiny" / "checkpoints"
    before = {each.name: each.read_bytes() for each in (checkpoints / "step-00000002").iterdir()}
    single = used(capsys, "single")
    done = told(capsys, "model", "convert", "tiny", "--files", "3")
    assert done["converted"] == ["step-00000001", "step-00000002"]
    assert len(list((checkpoints / "step-00000002" / "model").iterdir())) == 3
    assert not (checkpoints / "step-00000002" / "model.safetensors").exists()
    assert used(capsys, "several") == single
    assert told(capsys, "model", "convert", "tiny")["converted"] == done["converted"]
    after = {each.name: each.read_bytes() for each in (checkpoints / "step-00000002").iterdir()}
    assert after["model.safetensors"] == before["model.safetensors"]
    assert told(capsys, "model", "convert", "tiny")["converted"] == []


def test_only_one_step_is_converted_if_one_is_named(tiny_run, capsys):
    done = told(capsys, "model", "convert", "tiny", "--files", "2", "--step", "1")
    assert done["converted"] == ["step-00000001"]
    assert "choices" in refused(capsys, "model", "convert", "tiny", "--step", "7")
    assert "no settings" in refused(capsys, "model", "convert", "tiny", "--files", "0")
    assert "no settings" in refused(capsys, "model", "convert", "tiny", "train.steps=3")


def test_a_damaged_checkpoint_is_refused_and_stays(tiny_run, capsys):
    file = runs_root() / "tiny" / "checkpoints" / "step-00000001" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged" in refused(capsys, "model", "convert", "tiny", "--files", "2")
    assert file.is_file()
