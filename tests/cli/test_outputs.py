"""Outputs go where their names lead: devices, links, standard output, pipes; never over them."""

from __future__ import annotations

import contextvars
import os
import stat

import pytest

from coterie.cli.app import run as coterie
from coterie.exchange.runs import write_model_run
from coterie.foundation.event_log import EventLog
from coterie.foundation.locks import own
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.model import DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train.events import RunStarted, StepDone

WRITERS = {
    "report": (["report", "tiny", "--out"], "<html"),
    "presets copy": (["presets", "copy", "quickstart"], "model:"),
    "tokenizer train": (["tokenizer", "train", "april.txt", "--out"], '"model"'),
    "model export gguf": (["model", "export", "guest", "--format", "gguf", "--out"], "GGUF"),
}  # fmt: skip
FOLDERS = {
    "data prepare": ["data", "prepare", "april.txt", "--tokenizer", "bytes", "--out"],
    "data clean": ["data", "clean", "auto", "april.txt", "--out"],
    "data dedup": ["data", "dedup", "april.txt", "--threshold", "1", "--out"],
    "model export hf": ["model", "export", "tiny", "--out"],
}


@pytest.fixture(autouse=True)
def recorded(tiny_run):
    with EventLog(RunDirectory(runs_root() / "tiny").events) as log:
        log(RunStarted(
            name="tiny", preset="tiny", parameters=1, active_parameters=1, steps=1,
            tokens_per_step=1, device="cpu", precision="float32",
        ))  # fmt: skip
        log(StepDone(
            step=1, loss=1.0, learning_rate=1.0, gradient_norm=1.0, tokens=1, seconds=1.0,
            tokens_per_second=1.0,
        ))  # fmt: skip
    model = DecoderSettings.model_validate({
        "layers": 1, "width": 16, "context": 16, "vocab_size": 260,
        "attention": {"kind": "grouped", "heads": 2},
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 12}},
    })  # fmt: skip
    write_model_run(model.build(), Bytes().build(()), name="guest", description="", origin={})


@pytest.mark.parametrize("writer", WRITERS)
def test_links_stay_links_and_devices_devices(writer, places, capsys):
    words, content = WRITERS[writer]
    (places / "deep").mkdir()
    (places / "link").symlink_to("deep/target")
    assert coterie([*words, "link"]) == 0, capsys.readouterr().err
    assert (places / "link").is_symlink()
    assert content in (places / "deep" / "target").read_text(errors="replace")
    try:
        os.mknod(places / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (places / "null").write_text("")
    except OSError:
        pytest.skip("devices cannot be made here")
    assert coterie([*words, "null"]) == 0, capsys.readouterr().err
    assert (places / "null").is_char_device()
    os.mkfifo(places / "pipe")
    assert coterie([*words, "pipe"]) == 2
    assert "Nobody reads the pipe" in capsys.readouterr().err
    (places / "folder").mkdir()
    assert coterie([*words, "folder"]) == 2
    assert not [path for path in places.rglob(".*") if path.name != "."]


@pytest.mark.parametrize("writer", FOLDERS)
def test_folders_go_through_links_and_over_nothing_else(writer, places, capsys):
    (places / "link").symlink_to("target")
    assert coterie([*FOLDERS[writer], "link"]) == 0, capsys.readouterr().err
    assert (places / "link").is_symlink()
    assert (places / "target").is_dir()
    os.mkfifo(places / "pipe")
    (places / "file").write_text("kept")
    for name in ("pipe", "file", "link"):
        assert coterie([*FOLDERS[writer], name]) == 2
        assert "exists already" in capsys.readouterr().err
    assert (places / "pipe").is_fifo()
    assert (places / "file").read_text() == "kept"


@pytest.mark.parametrize("writer", [*WRITERS, *FOLDERS])
def test_a_place_that_has_an_owner_is_refused(writer, places, capsys):
    words = WRITERS[writer][0] if writer in WRITERS else FOLDERS[writer]
    if writer in ("report", "presets copy"):
        pytest.skip("written in a moment, whole or not at all")
    with own(places / "out", "something else"):
        assert contextvars.Context().run(coterie, [*words, "out"]) == 2  # as in another thread
    said = capsys.readouterr().err
    assert "out is being written by this very process already" in said
    assert "something else" in said
    assert not (places / "out").exists()


def test_an_import_of_a_pipe_does_not_hang(places, capsys):
    os.mkfifo(places / "pipe")
    assert coterie(["model", "import", "pipe"]) == 2
    assert "pipe" in capsys.readouterr().err
    assert coterie(["model", "export", "tiny", "--out", "hf"]) == 0
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        kept = (places / "hf" / name).read_bytes()
        (places / "hf" / name).unlink()
        os.mkfifo(places / "hf" / name)
        assert coterie(["model", "import", "hf", "--name", "back"]) == 2, name
        assert name in capsys.readouterr().err
        (places / "hf" / name).unlink()
        (places / "hf" / name).write_bytes(kept)
