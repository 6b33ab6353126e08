"""`coterie evaluate RUN routing` tells what experts are used for, by file and by source."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.checkpoint import load_model
from coterie.cli import app
from coterie.cli.routing import labels_of
from coterie.data import Document
from coterie.data.documents import Message
from coterie.evaluate import framed_text
from coterie.foundation.runs import find_run
from coterie.model import routed_layers
from coterie.tokenizer.raw_bytes import Bytes


def test_routing_is_analysed_by_domain(tiny_run, tmp_path, capsys):
    for name, text in (("a.txt", "It was a bright cold day. " * 5), ("b.txt", "clocks! " * 12)):
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert app.run(["evaluate", "tiny", "routing", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["domains"]) == files
    assert [layer["layer"] for layer in told["layers"]] == [0, 1]
    for layer in told["layers"]:
        assert sum(each["load"] for each in layer["experts"]) == pytest.approx(4)
        assert set(layer["experts"][0]["masked"]) == set(files)
        assert 0 <= layer["domain"]["nats"] <= layer["expert_entropy"]
    assert app.run(["evaluate", "tiny", "routing"]) == 0
    page = capsys.readouterr().out
    assert "What a token's expert tells" in page
    assert "1:3" in page
    assert app.run(["evaluate", "tiny", "routing", "--tokens", "--text", "a"]) == 2


def test_saturation_is_that_of_the_checkpoints_and_the_report_shows_all(
    tiny_run, capsys, monkeypatch
):
    def opposite(path):  # the upper router prefers those that are not selected now: 2 of 4
        found = load_model(path)
        with torch.no_grad():
            routed_layers(found.decoder)[1].router.weight.neg_()
        return found

    run, asked = find_run("tiny").path, ["evaluate", "tiny", "routing", "--text", "It was. " * 9]
    for load, share in ((load_model, 1.0), (opposite, 0.0)):
        monkeypatch.setattr("coterie.cli.routing.load_model", load)
        assert app.run([*asked, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [row["step"] for row in told["saturation"]] == [1, 2]
        assert told["saturation"][0]["layers"] == {"0": 1.0, "1": share}
        assert {layer["saturation_even"] for layer in told["layers"]} == {0.5}
    (run / "events.jsonl").write_text("")
    assert app.run(["report", "tiny"]) == 0
    page = (run / "report.html").read_text()
    for words in (
        "What each expert is worth",
        "Saturation",
        "deals of the labels at random",
        "1:3",
    ):
        assert words in page
    (run / "routing.json").write_text('{"layers": 5}')
    assert app.run(["report", "tiny"]) == 0
    assert "routing.json cannot be shown" in (run / "report.html").read_text()


def test_speakers_and_languages_are_read_off_the_texts():
    tokenizer = Bytes().build([])
    tagged = "<ACT>I</ACT>\n<SPEAKER>ANNE</SPEAKER>\nYes.\n<SPEAKER>BEN</SPEAKER>\nNo é.\n"
    talk = Document("b", "Q: hi A: hi", messages=(Message("user", "hi"), Message("bot", "hi")))
    documents = {"play": [Document("a", tagged, language="en")], "talk": [talk],
                 "poem": [Document("c", "ja", language="de")]}  # fmt: skip
    texts = {name: [framed_text(tokenizer, each.text) for each in some]
             for name, some in documents.items()}  # fmt: skip
    labels, names = labels_of(tokenizer, texts, documents)
    assert names == {"language": ["en", "de"], "speaker": ["ANNE", "BEN", "user", "bot"]}
    assert {kind: set(map(int, each["talk"][0])) for kind, each in labels.items()} == {
        "language": {-1}, "speaker": {-1, 2, 3},
    }  # fmt: skip
    (play,), bytes_ = labels["speaker"]["play"], np.array(texts["play"][0])
    for number, words in enumerate((b"\nYes.\n", "\nNo é.\n".encode())):
        assert bytes(bytes_[play == number].astype(np.uint8)) == words
    assert set(labels["language"]["poem"][0].tolist()) == {1}
    stored, _ = labels_of(tokenizer, {"held out": texts["play"]}, {})  # a store has no documents
    np.testing.assert_array_equal(stored["speaker"]["held out"][0], np.where(play < 0, -1, play))


@pytest.mark.parametrize("family", ["olmoe", "mixtral"])
def test_an_imported_model_is_analysed(family, places, capsys):
    transformers = pytest.importorskip("transformers", reason="the test extra brings it")
    tokenizers = pytest.importorskip("tokenizers")
    sizes = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
             "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
             "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None,
             "num_experts_per_tok": 2}  # fmt: skip
    count = "num_experts" if family == "olmoe" else "num_local_experts"
    config = transformers.AutoConfig.for_model(family, **sizes, **{count: 4})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained("foreign")
    vocabulary = {word: i for i, word in enumerate(["<|end|>", "?", *"abcdef"])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    words.save("foreign/tokenizer.json")
    Path("a.txt").write_text("abcabc" * 9)
    Path("b.txt").write_text("defdef" * 9)
    assert app.run(["model", "import", "foreign", "--name", "mine"]) == 0
    capsys.readouterr()
    assert app.run(["evaluate", "mine", "routing", "a.txt", "b.txt", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(layer["experts"]) for layer in told["layers"]] == [4, 4]
    for layer in told["layers"]:
        assert layer["token"]["nats"] >= layer["domain"]["nats"] - 1e-9  # the token says it
        assert sum(each["load"] for each in layer["experts"]) == pytest.approx(4)
        assert any(abs(each["masked"]["a.txt"]) > 1e-7 for each in layer["experts"])
