"""A text that several processes write is the one that a single process would have written."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.foundation.layers import overrides_layer
from coterie.generate import Engine, SamplingSettings
from coterie.generate.resumable import ResumableText
from coterie.model import DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes

GROUPED = {"kind": "grouped", "heads": 4, "kv_heads": 2}
SUMMARIES = {"kind": "latent_vectors", "heads": 4, "chunk": 4, "latents": 2}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}


def make(attention=GROUPED, seed=0, dtype=torch.float32, **changes):
    values = {
        "layers": 2, "width": 16, "context": 64, "vocab_size": 257, "attention": attention,
        "initial": {"std": 0.3, "outputs": "plain"},
    } | changes  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(seed))
    decoder.register_forward_hook(lambda *call: _never_end(call[-1]))
    return Engine(decoder.to(dtype), Bytes().build([]))


def _never_end(output):
    output.logits[..., 256] -= 100.0
    return output


def sampling(cache, tokens=20, **changes):
    values = {"max_tokens": tokens, "temperature": 1.0, "frequency_penalty": 0.3, "cache": cache}
    return SamplingSettings.model_validate(values | changes)


WAYS = {
    "full": (GROUPED, torch.float32, {"kind": "full", "room": 4}),
    "spilled": (GROUPED, torch.bfloat16, {"kind": "spilled", "room": 4}),
    "mla": (MLA, torch.float64, {"kind": "spilled"}),
}


@pytest.mark.parametrize(("attention", "dtype", "cache"), WAYS.values(), ids=WAYS)
def test_pieces_of_a_text_join_to_the_whole(tmp_path, attention, dtype, cache):
    """Sixty tokens and a prompt of thirteen: the last of them stand in a second stretch."""
    engine, path = make(attention, dtype=dtype), tmp_path / "text.session"
    prompt = engine.encode_prompt("To be, or not")
    whole = ResumableText(engine, sampling(cache, 60), prompt)
    pieces = list(whole.stream())
    parts = []
    for number in range(3):
        own = make(attention, dtype=dtype)  # as another process would
        if number == 0:
            text = ResumableText(own, sampling(cache, 20), prompt)
        else:
            text = ResumableText.load(own, path)
        parts += list(text.stream())
        text.save(path)
    assert [each.token for each in parts] == [each.token for each in pieces]
    assert [each.logprob for each in parts] == [each.logprob for each in pieces]
    assert text.tokens == whole.tokens
    alone = engine.generate("To be, or not", sampling(cache, 60))
    assert list(alone.tokens) == [each.token for each in pieces]
    assert {*os.listdir(tmp_path)} - {"cache"} == {"text.session"}


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_resumable import make, sampling, ResumableText
path = Path(sys.argv[2])
text = ResumableText.load(make(), path)
for number, piece in enumerate(text.stream()):
    text.save(path)
    print(number, flush=True)
"""


def test_a_killed_process_leaves_a_text_to_go_on_from(tmp_path):
    engine, path = make(), tmp_path / "text.session"
    cache = {"kind": "spilled", "folder": str(tmp_path / "spilled")}
    prompt = engine.encode_prompt("Once")
    text = ResumableText(engine, sampling(cache, 40), prompt)
    expected = [each.token for each in text.stream()]
    begun = ResumableText(engine, sampling(cache, 10), prompt)
    list(begun.stream())
    begun.save(path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(path)],
        env=environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    resumed = ResumableText.load(engine, path, [overrides_layer(["max_tokens=40"])])
    list(resumed.stream())
    written = resumed.tokens[len(prompt) :]
    assert len(written) > 50  # more than was there before the kill
    assert written[:40] == expected
    assert list((tmp_path / "spilled").iterdir()) == []


def test_what_cannot_be_resumed_is_told(tmp_path):
    engine, path = make(), tmp_path / "text.session"
    text = ResumableText(engine, sampling({"kind": "full"}, 3), [65, 66])
    list(text.stream())
    text.save(path)
    with pytest.raises(UserError, match="another model, or with other weights"):
        ResumableText.load(make(seed=1), path)
    with pytest.raises(UserError, match="keeps the cache and the seed"):
        ResumableText.load(engine, path, [overrides_layer(["seed=5"])])
    whole = path.read_bytes()
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="is damaged"):
            ResumableText.load(engine, path)
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(UserError, match="no session"):
        ResumableText.load(engine, path)


@pytest.mark.parametrize("kind", ["quantised", "window", "pruned", "paged"])
def test_a_cache_that_cannot_be_saved_is_refused_before_a_token_is_written(kind):
    cache = {"kind": kind} | ({"size": 8} if kind in ("window", "pruned") else {})
    with pytest.raises(UserError, match="cannot be saved") as caught:
        ResumableText(make(), sampling(cache, 3), [65, 66])
    assert "cache=full" in str(caught.value.hint)


def test_a_model_that_keeps_summaries_is_refused_with_the_reason():
    with pytest.raises(UserError, match="keep summaries"):
        ResumableText(make(SUMMARIES), sampling({"kind": "full"}, 3), [65, 66])


def test_an_interrupted_save_leaves_the_text_before(tmp_path, monkeypatch):
    engine, path = make(), tmp_path / "text.session"
    text = ResumableText(engine, sampling({"kind": "full"}, 4), [65, 66])
    list(text.stream())
    text.save(path)
    before = path.read_bytes()
    resumed = ResumableText.load(engine, path)
    list(resumed.stream())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coterie.checkpoint.tensor_file._write", full)
    with pytest.raises(UserError):
        resumed.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["text.session"]
