"""What cannot be imported is refused with what is wrong, and nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coterie.cli.app import run as coterie
from coterie.exchange.files import INDEX, SINGLE, read_json
from coterie.exchange.huggingface import export_folder, import_folder
from coterie.exchange.imported import ExchangeError
from coterie.exchange.runs import write_model_run
from coterie.model import DecoderSettings

SETTINGS = {
    "layers": 2, "width": 16, "context": 8, "vocab_size": 11,
    "attention": {"kind": "grouped", "heads": 2},
    "feedforward": {
        "kind": "moe", "experts": [{"count": 3, "body": {"kind": "swiglu", "width": 8}}],
        "experts_per_token": 2,
    },
}  # fmt: skip
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path):
    """Write a small, sound Mixtral checkpoint."""
    decoder = DecoderSettings.model_validate(SETTINGS).build(torch.Generator().manual_seed(1))
    return export_folder(decoder, None, tmp_path / "model")


@pytest.fixture
def refused(folder, capsys):
    """Import the folder, expect a refusal from the library and the verb alike; return the words."""

    def refuse(path: Path = folder) -> str:
        with pytest.raises(ExchangeError) as error:
            import_folder(path)
        assert coterie(["model", "import", str(path), "--name", "foreign"]) == 2
        assert " ".join(error.value.message.split()) in " ".join(capsys.readouterr().err.split())
        assert not Path(os.environ["COTERIE_RUNS"], "foreign").exists()
        return str(error.value)

    return refuse


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder, change):
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def test_a_place_that_does_not_exist(refused, tmp_path):
    assert "There is no" in refused(tmp_path / "nowhere")


def test_a_folder_without_a_configuration(refused, folder):
    (folder / "config.json").unlink()
    assert "no config.json" in refused()


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"text"', "\udcff", "[" * 100_000])
def test_a_configuration_that_is_none(refused, folder, content):
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "config.json" in refused()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "mixtrel"}, "“mixtrel”.*did you mean “mixtral”"),
        ({"model_type": None}, "no model_type"),
        ({"architectures": ["MixtralForSequenceClassification"]}, "no language model"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'.*whole number"),
        (
            {"hidden_size": 16.5, "num_hidden_layers": 0},
            "num_hidden_layers is 0.*hidden_size is 16.5",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' or 'swish'"),
        ({"rms_norm_eps": True}, "rms_norm_eps is True"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0, which no part"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_attention_heads": 2, "num_key_value_heads": 3}, "not a multiple of kv_heads"),
        ({"num_experts_per_tok": 9}, "experts_per_token=9, but there are only 3"),
        ({"num_experts_per_tok": 1}, "renormalise with experts_per_token=1"),
    ],
)
def test_a_configuration_that_cannot_be_built(refused, folder, values, words):
    import re

    change_config(folder, **values)
    found = refused()
    assert re.search(words, found, re.DOTALL), found


def test_all_problems_of_a_configuration_at_once(refused, folder):
    change_config(folder, hidden_act="relu", clip_qkv=3.0, vocab_size=-1)
    found = refused()
    for name in ("hidden_act", "clip_qkv", "vocab_size"):
        assert name in found


def test_missing_unexpected_and_misshapen_tensors_at_once(refused, folder):
    def spoil(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.0.block_sparse_moe.experts.2.w3.weight"]
        tensors["model.layers.7.rest"] = torch.ones(1)
        tensors[QUERY] = torch.ones(16, 8)

    change_tensors(folder, spoil)
    found = refused()
    assert "2 tensors are missing" in found
    assert "experts.2.w3.weight, model.norm.weight" in found
    assert "1 tensors are unexpected: model.layers.7.rest" in found
    assert f"{QUERY} has shape (16, 8) instead of (16, 16)" in found


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_file(refused, folder, kept):
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:kept])
    assert f"{SINGLE} is not a whole safetensors file" in refused()


def test_weights_that_are_no_floating_point(refused, folder):
    change_tensors(folder, lambda x: x.update({QUERY: torch.ones(16, 16, dtype=torch.int8)}))
    assert "stored as I8" in refused()


def test_a_tied_head_that_differs(refused, folder):
    change_config(folder, tie_word_embeddings=True)
    assert "lm_head.weight and model.embed_tokens.weight differ" in refused()


@pytest.fixture
def sharded(folder):
    """Cut the weights in two, with an index; return what the index holds."""
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    placed = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        placed |= dict.fromkeys(part, file)
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
    return placed


def test_shards_need_their_index_and_each_other(refused, folder, sharded):
    assert import_folder(folder).architecture == "mixtral"
    index = (folder / INDEX).read_text()
    (folder / INDEX).unlink()
    assert "no model.safetensors.index.json that lists them" in refused()
    (folder / INDEX).write_text(index)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks 1 of its 2 files: model-00002-of-00002.safetensors" in refused()


@pytest.mark.parametrize("place", ["../other/model.safetensors", "/etc/passwd", "weights.bin", 3])
def test_an_index_cannot_lead_elsewhere(refused, folder, sharded, place):
    sharded[QUERY] = place
    (folder / INDEX).write_text(json.dumps({"weight_map": sharded}))
    assert "no “weight_map” from names to files of this folder" in refused()


def test_an_index_that_promises_too_much(refused, folder, sharded):
    sharded["model.layers.9.more"] = sharded[QUERY]
    (folder / INDEX).write_text(json.dumps({"weight_map": sharded}))
    assert "lists tensors that no file holds: model.layers.9.more" in refused()


def test_a_tensor_in_two_shards(refused, folder, sharded):
    second = folder / "model-00002-of-00002.safetensors"
    twice = next(name for name, file in sharded.items() if "00001" in file)
    save_file(load_file(second) | {twice: torch.ones(1)}, second)
    assert f"{twice} stands in both" in refused()


class Trap:
    """Writes a file when it is unpickled, as malicious weights could do anything."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "w.pt", "a.ckpt"])
def test_pickles_are_never_opened(refused, folder, tmp_path, name):
    mark = tmp_path / "sprung"
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    for path in (folder, folder / name):
        found = refused(path)
        assert "can run any program" in found
        assert "safetensors" in found
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists()  # the trap works


def test_a_pickle_beside_safetensors_is_left_alone(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert import_folder(folder).architecture == "mixtral"
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_named_safetensors(refused, folder, tmp_path):
    (folder / SINGLE).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "not a whole safetensors file" in refused()
    assert not (tmp_path / "sprung").exists()


def test_a_run_of_our_own(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 1\n")
    assert "a run or checkpoint of Coterie already" in refused(tmp_path / "run")


def test_a_single_file(refused, folder):
    assert "Name the folder" in refused(folder / SINGLE)


def test_a_damaged_tokenizer(folder):
    from coterie.foundation.errors import TokenizerError

    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        import_folder(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 100_000_000}, "100,000,000 layers"),
        ({"vocab_size": 1_000_000_000}, "shape"),
        ({"vocab_size": 10**15}, "vocab_size is 1000000000000000"),
        ({"intermediate_size": 1_000_000_000}, "shape"),
        ({"num_local_experts": 100_000_000}, "num_local_experts is 100000000"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "scaling ['yarn'] is not known"),
        ({"rope_parameters": {"rope_theta": "far"}}, "rope_theta is 'far'"),
        ({"rope_parameters": None, "rope_theta": [1]}, "rope_theta is [1]"),
        ({"rope_parameters": {"partial_rotary_factor": "half"}}, "partial_rotary_factor is 'half'"),
    ],
)
def test_sizes_beyond_memory_and_values_of_another_type_are_refused(folder, refused, values, said):
    change_config(folder, **values)
    assert said in refused()


@pytest.mark.parametrize("value", [float("nan"), 1e300])
def test_weights_that_are_no_numbers_are_refused(folder, refused, value):
    change_tensors(folder, lambda tensors: tensors.update({QUERY: tensors[QUERY].double() * value}))
    assert QUERY in refused()


def test_everyone_may_read_what_is_exported(folder):
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_a_gguf_file_is_known_whatever_its_name(folder, tmp_path, capsys):
    pytest.importorskip("gguf")
    assert coterie(["model", "import", str(folder), "--name", "one"]) == 0
    out = str(tmp_path / "without-suffix")
    assert coterie(["model", "export", "one", "--format", "gguf", "--out", out]) == 0
    assert coterie(["model", "import", out, "--name", "two"]) == 0


@pytest.mark.parametrize("position", ["none", "rotary"])
def test_what_cannot_be_done_without_a_tokenizer_is_not_proposed(position, capsys):
    settings = DecoderSettings.model_validate(SETTINGS | {"position": {"kind": position}})
    decoder = settings.build(torch.Generator().manual_seed(1))
    write_model_run(decoder, None, name="mute", description="", origin={})
    assert coterie(["model", "show", "mute"]) == 0
    said = capsys.readouterr().err
    assert "coterie generate" not in said
    assert ("model extend" in said) == (position == "rotary")


@pytest.mark.parametrize("content", [b"1" * 10_000, b"[" * 100_000, b"\xff", b'{"a":1,"a":2}', b""])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_readers_stumble_over_is_refused_in_words(name, content, tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"model_type": "llama"}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExchangeError, match=name):
        read_json(tmp_path / name)
