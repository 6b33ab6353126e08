"""`coterie plan`: the table, the proposal, and a command that `train` takes."""

from __future__ import annotations

import json
import shlex

import pytest

import coterie
from coterie.cli.app import run as command
from coterie.train import fitting

WORDS = ["plan", "quickstart", "scale=tiny", "model.vocab_size=80", "data.source=april.txt"]


@pytest.fixture(autouse=True)
def april(places):
    """A text to train on."""
    (places / "april.txt").write_text("It was a bright cold day in April.\n" * 40)


def limit(share: float) -> str:
    """Return the GiB of a device that has room for a share of the run as it is."""
    found = coterie.plan("quickstart", {"scale": "tiny", "data.source": "april.txt",
                                        "model.vocab_size": 80})  # fmt: skip
    room = share * found.proposal.memory_bytes / fitting._SHARE
    return str((room + fitting._LIBRARIES) / 2**30)


def test_it_proposes_what_train_takes(capsys):
    asked = [*WORDS, "train.gradient_accumulation=1", "--memory", limit(0.9)]
    assert command(asked) == 0
    out, err = capsys.readouterr()
    assert "as it is" in out
    assert "too much" in out
    assert "proposed" in out
    assert "optimizer " in out  # headings stand apart
    assert "The cheapest that fits" in out
    call = shlex.split(err.partition("Next: ")[2])
    assert "train.gradient_accumulation=1" not in call
    assert command([*call[1:], "--dry-run"]) == 0
    capsys.readouterr()
    assert command([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert shlex.split(found["command"]) == call
    assert sum(found["proposal"]["memory"].values()) == found["proposal"]["memory_bytes"]
    assert found["proposal"]["memory_bytes"] <= found["memory_limit"] - found["reserve"]
    assert not found["candidates"][0]["fits"]


def test_what_fits_is_left_and_what_cannot_is_said(capsys):
    assert command([*WORDS, "--memory", "12"]) == 0
    out, err = capsys.readouterr()
    assert "It fits as it is into 12 GiB less" in out
    assert "train." not in err
    tight = limit(0.05)
    assert command([*WORDS, "--memory", tight]) == 1
    out, err = capsys.readouterr()
    assert "Nothing of this fits" in out
    assert "CHANGES THE TRAINING ITSELF" in out
    assert "or more" in err
    assert command([*WORDS, "--memory", tight, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["proposal"] is None
    assert found["command"] is None
    assert found["least_memory_limit"] > found["memory_limit"]


@pytest.mark.parametrize("size", ["0", "0.2", "-1", "nan", "1e9"])
def test_a_memory_that_is_none_is_refused(size, capsys):
    assert command([*WORDS, f"--memory={size}"]) == 2
    assert "--memory 12" in capsys.readouterr().err
