"""A run made of a model: every verb reads it, and it is whole or not there."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

import coterie
from coterie.checkpoint import load_model
from coterie.checkpoint.manifest import FileRecord, read_manifest, write_manifest
from coterie.cli.app import run as call
from coterie.exchange import runs as writing
from coterie.exchange.runs import ORIGIN, write_model_run
from coterie.foundation.errors import RunError, TokenizerError
from coterie.foundation.files import sha256_bytes
from coterie.foundation.locks import OwnedError
from coterie.foundation.runs import RunDirectory, find_run, list_runs, runs_root
from coterie.model import Decoder, DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train.settings import RunSettings


@pytest.fixture
def decoder() -> Decoder:
    settings = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 16, "vocab_size": 260,
        "attention": {"kind": "grouped", "heads": 2}, "initial": {"std": 0.3},
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 12}},
    })  # fmt: skip
    return settings.build(torch.Generator().manual_seed(1))


def write(decoder: Decoder, tokenizer=None, name: str = "guest"):
    origin = {"source": "model.gguf", "architecture": "llama", "sha256": "00"}
    return write_model_run(
        decoder, tokenizer, name=name, description="a guest", origin=origin
    )  # fmt: skip


def test_the_model_comes_back_bit_equal_with_its_tokenizer_and_origin(decoder):
    tokenizer = Bytes().build(())
    run = write(decoder, tokenizer)
    loaded = load_model("guest")
    assert loaded.step == 0
    assert loaded.tokenizer.fingerprint == tokenizer.fingerprint
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(loaded.decoder.state_dict()[name], tensor), name
    assert json.loads((run.path / ORIGIN).read_text()) == {
        "source": "model.gguf", "architecture": "llama", "sha256": "00",
        "coterie": coterie.__version__,
    }  # fmt: skip
    assert find_run("guest").path == run.path


def test_every_verb_reads_it(decoder, places: Path, capsys):
    write(decoder, Bytes().build(()))
    text = places / "text.txt"
    text.write_text("To be, or not to be.\n" * 20)
    assert call(["generate", "guest", "To be", "max_tokens=5", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["samples"][0]["tokens"]) == 5
    assert call(["evaluate", "guest", str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 420
    assert call(["runs", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["preset"], row["status"]) == ("guest", "llama", "finished")
    assert row["parameters"] == sum(p.numel() for p in decoder.parameters())
    assert call(["runs", "show", "guest"]) == 0
    assert "step-00000000" in capsys.readouterr().out
    assert call(["report", "guest"]) == 0


def test_training_goes_on_from_its_weights(decoder, places: Path, capsys):
    text = places / "text.txt"
    text.write_text("To be, or not to be.\n" * 60)
    write(decoder, Bytes().build(()))
    words = ["train.steps=2", f"data.source={text}", "data.split=tail", "train.batch_size=2",
             "sample.max_tokens=4"]  # fmt: skip
    assert call(["train", "--resume", "guest", "model.layers=3", *words]) == 2
    assert "model.layers cannot be changed" in capsys.readouterr().err
    assert call(["train", "--resume", "guest", *words]) == 0, capsys.readouterr().err
    trained = load_model("guest")
    assert trained.step == 2
    for name, tensor in decoder.state_dict().items():
        moved = (trained.decoder.state_dict()[name] - tensor).abs().max()
        assert moved < 1e-3, f"{name} was drawn anew"
    assert not torch.equal(trained.decoder.norm.weight, decoder.norm.weight)
    assert call(["train", "--resume", "guest", "train.steps=3", "train.batch_size=4"]) == 2
    assert "only train.steps or train.epochs may be" in capsys.readouterr().err


def test_without_a_tokenizer_it_says_what_cannot_be_done(decoder, capsys):
    write(decoder)
    loaded = load_model("guest")
    assert torch.equal(loaded.decoder.norm.weight, decoder.norm.weight)
    with pytest.raises(TokenizerError, match="came without a tokenizer"):
        _ = loaded.tokenizer
    assert call(["generate", "guest", "To be"]) == 2
    assert "came without a tokenizer" in capsys.readouterr().err
    assert call(["evaluate", "guest"]) == 2
    assert "no tokenizer at" in capsys.readouterr().err


def test_an_interruption_leaves_nothing(decoder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "dump_yaml", stop)  # the last file of all
    with pytest.raises(KeyboardInterrupt):
        write(decoder)
    assert list_runs() == []
    assert list(runs_root().iterdir()) == []


@pytest.mark.parametrize("name", ["latest", "../x", "", ".hidden"])
def test_refuses_names_that_cannot_be(decoder, name):
    with pytest.raises(RunError, match="cannot name a run"):
        write(decoder, name=name)


def test_refuses_a_name_that_is_taken(decoder):
    write(decoder)
    with pytest.raises(RunError, match="already") as caught:
        write(decoder)
    assert "--name guest-2" in str(caught.value)


def test_an_import_does_not_replace_a_run_that_was_begun_meanwhile(decoder):
    begun = RunDirectory.create(runs_root(), "guest")
    begun.write_config("seed: 7\n")
    with pytest.raises(RunError, match="already"):
        write(decoder)
    assert begun.config.read_text() == "seed: 7\n"


def test_while_an_import_goes_on_nobody_else_begins_that_run(decoder, monkeypatch):
    refused = []
    save = writing.save_checkpoint

    def intrude(*arguments, **options):
        def second():
            with pytest.raises(OwnedError, match="importing") as caught:
                RunDirectory.create(runs_root(), "guest")
            refused.append(caught.value)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        return save(*arguments, **options)

    monkeypatch.setattr(writing, "save_checkpoint", intrude)
    write(decoder)
    assert len(refused) == 1
    assert [run.name for run in list_runs()] == ["guest"]


@pytest.mark.parametrize("old", [False, True])
def test_a_run_that_was_moved_keeps_its_tokenizer(old, decoder, places: Path, capsys, monkeypatch):
    """Renamed or moved, named as a run or by its settings; runs of older versions too."""
    text = places / "text.txt"
    text.write_text("To be, or not to be.\n" * 60)
    run = write(decoder, Bytes().build(()))
    if old:  # they named the absolute path
        for config in [run.config, *run.path.glob("checkpoints/*/config.yaml")]:
            said = config.read_text()
            assert "path: tokenizer.json" in said
            absolute = run.path.absolute() / "tokenizer.json"
            config.write_text(said.replace("path: tokenizer.json", f"path: {absolute}"))
        seal(run.path / "checkpoints" / "step-00000000")
    moved = runs_root() / "moved"
    run.path.rename(moved)
    write(decoder, Bytes(special_tokens=("<X>", "<Y>")).build(()))  # another one in its old place
    (places / "elsewhere").mkdir()
    monkeypatch.chdir(places / "elsewhere")
    (places / "elsewhere/tokenizer.json").write_text("{}")  # not the one that is meant
    words = ["train.steps=1", f"data.source={text}", "data.split=tail", "train.batch_size=2",
             "sample.max_tokens=4"]  # fmt: skip
    assert call(["train", str(moved / "config.yaml"), "--dry-run", *words]) == 0
    assert call(["train", "--resume", "moved", *words]) == 0, capsys.readouterr().err
    assert load_model("moved").tokenizer == Bytes().build(())
    assert call(["evaluate", "moved"]) == 0, capsys.readouterr().err
    alone = places / "alone"
    shutil.copytree(next(moved.glob("checkpoints/step-00000000")), alone)
    shutil.rmtree(moved)
    shutil.rmtree(run.path)
    settings = RunSettings.model_validate(load_model(alone).settings)
    assert settings.tokenizer.build() == Bytes().build(())


def seal(checkpoint: Path) -> None:
    """Bring a checkpoint's manifest up to date with a changed settings file."""
    content = (checkpoint / "config.yaml").read_bytes()
    record = FileRecord(bytes=len(content), sha256=sha256_bytes(content))
    manifest = read_manifest(checkpoint)
    files = {**manifest.files, "config.yaml": record}
    write_manifest(checkpoint, manifest.model_copy(update={"files": files}))
