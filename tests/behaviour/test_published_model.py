"""The way of a published model, with a tiny one of its kind: file, run, text, and out again.

`benchmarks/smollm2.py` walks it with SmolLM2-135M-Instruct itself. The file here has its layout:
blocks of Q4_1, the tied embedding in Q8_0, its kind of words and its tokens for ends.
"""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import torch

from coterie.checkpoint import load_model
from coterie.cli.app import main
from coterie.evaluate import perplexity
from coterie.exchange.gguf.pretokenizers import PRETOKENIZERS
from tests.exchange.gguf.conftest import (
    foreign_tensors,
    foreign_values,
    gguf,
    make_foreign,
    trained,
    transformers,
    write_gguf,
)

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = "To be, or not to be, that is the question: 2024 times."


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Write the file; return its path and the model of transformers with the same weights."""
    monkeypatch.setenv("COTERIE_RUNS", str(tmp_path / "runs"))
    rules = trained(PRETOKENIZERS["smollm"], *SPECIALS, size=416)
    description = json.loads(rules.to_str())["model"]
    pieces = sorted(description["vocab"], key=description["vocab"].get)
    model, architecture, said = make_foreign(
        "llama", vocab_size=416, tie_word_embeddings=True, attention_bias=False
    )
    tensors = foreign_tensors(model, architecture)
    tensors.pop("output.weight")
    kinds = {name: "Q4_1" for name, each in tensors.items() if each.ndim > 1}
    kinds["token_embd.weight"] = "Q8_0"
    tokenizer = {
        "model": "gpt2", "pre": "smollm", "tokens": pieces,
        "token_type": [3 if piece in SPECIALS else 1 for piece in pieces],
        "merges": [" ".join(pair) for pair in description["merges"]],
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": False,
    }  # fmt: skip
    path = write_gguf(
        tmp_path / "Small.Q4_1.gguf", architecture, foreign_values(model.config, said), tensors,
        kinds, {f"tokenizer.ggml.{name}": value for name, value in tokenizer.items()},
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Permuting rows and opening blocks, which lie within rows, may change places.
                kind = "Q8_0" if parameter.shape[0] == 416 else "Q4_1"
                number = gguf.GGMLQuantizationType[kind]
                packed = gguf.quants.quantize(parameter.numpy(), number)
                parameter.copy_(torch.from_numpy(gguf.quants.dequantize(packed, number)))
    return path, model


def coterie(*words):
    """Run a command; return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code in (0, None), printed.getvalue()
    return printed.getvalue()


def test_a_published_file_becomes_a_run_that_writes_and_leaves(published, tmp_path):
    path, theirs = published
    told = json.loads(coterie("model", "import", str(path), "--name", "small", "--json"))
    assert told["architecture"] == "llama"
    loaded = load_model("small")
    tokenizer = loaded.tokenizer
    assert tokenizer.ends == {0, 2}
    ids = torch.tensor([tokenizer.encode(TEXT)])
    made = json.loads(coterie("generate", "small", TEXT, "temperature=0", "max_tokens=8", "--json"))
    greedy = theirs.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=[0, 2])
    written = [each["token"] for each in made["samples"][0]["tokens"]]
    assert written == greedy[0, ids.shape[1] :].tolist()

    coterie("model", "export", "small", "--format", "hf", "--out", str(tmp_path / "hf"))
    ours = perplexity(loaded.decoder, tokenizer, TEXT).perplexity
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    row = torch.tensor([[tokenizer.start_of_text, *words(TEXT)["input_ids"]]])
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(again(row).logits[0, :-1], row[0, 1:])
    assert ours == pytest.approx(float(loss.exp()), rel=1e-5)

    coterie("model", "export", "small", "--format", "gguf", "--out", str(tmp_path / "s.gguf"))
    coterie("model", "import", str(tmp_path / "s.gguf"), "--name", "back")
    back = load_model("back")
    assert back.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    assert back.tokenizer.ends == tokenizer.ends
    assert torch.allclose(back.decoder(ids).logits, loaded.decoder(ids).logits, atol=5e-3)
