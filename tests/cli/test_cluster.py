"""`coterie plan --gpus`: what is printed, the JSON, and what is refused."""

from __future__ import annotations

import json
import shlex

import pytest

from coterie.cli.app import run as command

WORDS = ["plan", "s15era", "scale=tiny", "model.vocab_size=80", "tokenizer=characters",
         "data.source=april.txt", "train.batch_size=16"]  # fmt: skip


@pytest.fixture(autouse=True)
def april(places):
    """A text to train on."""
    (places / "april.txt").write_text("It was a bright cold day in April.\n" * 40)


def test_it_says_what_a_cluster_would_do(capsys):
    assert command([*WORDS, "--gpus", "2", "--nodes", "2", "--memory", "80"]) == 0
    out, err = capsys.readouterr()
    assert "2 × h100 of 80 GiB on 2 nodes" in out
    assert "The fastest that fits" in out
    assert "sent by a device in a step" in out
    assert "Why no other" in out
    call = shlex.split(err.partition("Next: ")[2])
    assert call[-8:] == ["--devices", "1", "--nodes", "2", "--rendezvous", "HOST:29500",
                         "--name", "RUN"]  # fmt: skip
    capsys.readouterr()
    assert command([*call[1:-8], "--dry-run"]) == 0  # its words are train's
    capsys.readouterr()
    assert command([*WORDS, "--gpus", "2", "--nodes", "2", "--memory", "80", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert shlex.split(found["command"]) == call
    chosen = found["chosen"]
    assert sum(chosen["memory"].values()) == chosen["memory_bytes"]
    parts = chosen["compute"] + chosen["idle"] + chosen["waiting"]
    assert chosen["seconds"] == pytest.approx(parts)
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / chosen["seconds"])


def test_one_device_here_is_what_dry_run_says(capsys, monkeypatch):
    monkeypatch.setattr("coterie.train.machine.measure_matmul", lambda *_, **__: 1e11)
    for _ in range(2):  # a process's first count makes tables that are kept
        capsys.readouterr()
        assert command(["train", *WORDS[1:], "--dry-run", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["plan"]
    assert command([*WORDS, "--gpus", "1", "--device", "here", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"]["memory"] == alone["memory"]
    assert found["flops"] == pytest.approx(alone["flops_per_step"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nodes", "2"], "--gpus how many"),
        (["--gpus", "8", "--device", "abacus"], "no figures of a device “abacus”"),
        (["--gpus", "7"], "No layout divides this run over 7 devices"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, words, told):
    assert command([*WORDS, *words]) == 2
    assert told in capsys.readouterr().err
