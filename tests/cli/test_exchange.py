"""`coterie model import` and `export`: a run leaves, comes back, and writes the same text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from coterie.checkpoint import load_model
from coterie.cli.app import run as coterie
from coterie.exchange.runs import write_model_run
from coterie.model import DecoderSettings


def test_a_run_leaves_and_comes_back(tiny_run, capsys, places):
    assert coterie(["model", "export", "tiny", "--out", "out"]) == 0
    shown = capsys.readouterr()
    assert "MixtralForCausalLM" in shown.out
    assert "coterie model import out" in shown.err
    assert {each.name for each in Path("out").iterdir()} >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md",
    }  # fmt: skip
    assert coterie(["model", "import", "out", "--name", "back", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["run"], row["architecture"], row["layers"]) == ("back", "mixtral", 2)
    before, after = load_model("tiny"), load_model("back")
    assert row["parameters"] == sum(each.numel() for each in before.decoder.parameters())
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(before.decoder(tokens).logits, after.decoder(tokens).logits)
    assert before.tokenizer.encode("cold April") == after.tokenizer.encode("cold April")
    texts = []
    for run in ("tiny", "back"):
        assert coterie(["generate", run, "It was", "temperature=0", "max_tokens=5"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


def test_import_tells_what_came(tiny_run, capsys):
    coterie(["model", "export", "tiny", "--out", "out", "--dtype", "bf16"])
    capsys.readouterr()
    assert coterie(["model", "import", "out"]) == 0
    shown = capsys.readouterr()
    for word in ("mixtral", "layers", "parameters", "tokens"):
        assert word in shown.out
    assert "weights of bfloat16 became float32, exactly" in shown.err
    assert "coterie generate out" in shown.err
    assert coterie(["model", "import", "out", "--json"]) == 0  # a free name is found
    assert json.loads(capsys.readouterr().out)["run"] == "out-2"


def test_a_folder_of_the_same_name_does_not_hide_the_run(tiny_run, capsys):
    coterie(["model", "export", "tiny", "--out", "out"])
    assert coterie(["model", "import", "out"]) == 0  # the run is called as the folder beside us
    assert coterie(["generate", "out", "It was", "max_tokens=3"]) == 0
    assert coterie(["model", "show", "out"]) == 0
    assert load_model("out").path.name == "step-00000000"


def test_without_a_tokenizer(tiny_run, capsys):
    coterie(["model", "export", "tiny", "--out", "out"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path("out", name).unlink()
    assert coterie(["model", "import", "out", "--name", "mute"]) == 0
    assert "No tokenizer came along" in capsys.readouterr().err
    Path("out", "tokenizer.json").write_text("{")  # not looked at where another is named
    assert coterie(["model", "import", "out", "--name", "loud", "--tokenizer", "gpt2"]) == 2
    assert "50,257 tokens, the model knows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "tiny", "--format", "onnx"], "no format “onnx”"),
        (["export", "tiny", "--dtype", "float12"], "no precision “float12”; did you mean"),
        (["export", "tiny", "--dtype", "q8_0"], "no precision “q8_0”"),
        (["export", "nobody"], "no run “nobody”"),
        (["export"], "Which run?"),
        (["import"], "Which folder or file?"),
        (["import", "nowhere"], "There is no nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(tiny_run, capsys, arguments, words):
    assert coterie(["model", *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert sorted(os.listdir(os.environ["COTERIE_RUNS"])) == ["tiny"]


def test_a_taken_name_is_refused(tiny_run, capsys):
    coterie(["model", "export", "tiny", "--out", "out"])
    assert coterie(["model", "import", "out", "--name", "tiny"]) == 2
    assert "There is a run “tiny” already" in capsys.readouterr().err


def test_a_model_without_a_home_writes_nothing(tiny_run, capsys, places):
    from coterie.checkpoint.manifest import FileRecord, read_manifest, write_manifest
    from coterie.foundation.files import sha256_file
    from coterie.foundation.runs import find_run

    run = find_run("tiny")
    for file in run.path.rglob("config.yaml"):
        text = file.read_text()
        assert "activation: silu" in text
        file.write_text(text.replace("activation: silu", "activation: gelu"))
    for manifest in run.path.rglob("manifest.json"):
        config = manifest.parent / "config.yaml"
        record = FileRecord(bytes=config.stat().st_size, sha256=sha256_file(config))
        known = read_manifest(manifest.parent)
        files = {**known.files, "config.yaml": record}
        write_manifest(manifest.parent, known.model_copy(update={"files": files}))
    assert coterie(["model", "export", "tiny", "--out", "out"]) == 2
    assert "the gelu activation of its experts" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_taken_name_is_refused_before_anything_is_read(tiny_run, capsys):
    assert coterie(["model", "import", "no-such-folder", "--name", "tiny"]) == 2
    assert "There is a run “tiny” already" in capsys.readouterr().err


def mute(**changes):
    """Write a run of a small model that came without a tokenizer."""
    settings = {
        "layers": 1, "width": 16, "context": 8, "vocab_size": 11,
        "attention": {"kind": "grouped", "heads": 2},
    }  # fmt: skip
    decoder = DecoderSettings.model_validate(settings | changes).build()
    write_model_run(decoder, None, name="mute", description="", origin={})


def test_a_gguf_file_is_known_whatever_its_name(tmp_path, capsys):
    pytest.importorskip("gguf")
    mute()
    out = str(tmp_path / "without-suffix")
    assert coterie(["model", "export", "mute", "--format", "gguf", "--out", out]) == 0
    assert coterie(["model", "import", out, "--name", "two"]) == 0


@pytest.mark.parametrize("position", ["none", "rotary"])
def test_what_cannot_be_done_without_a_tokenizer_is_not_proposed(position, capsys):
    mute(position=position)
    assert coterie(["model", "show", "mute"]) == 0
    said = capsys.readouterr().err
    assert "coterie generate" not in said
    assert ("model extend" in said) == (position == "rotary")
