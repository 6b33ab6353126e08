"""Exports read by llama.cpp itself: logits and tokens beside ours.

    pip install "coterie[gguf]" llama-cpp-python
    python benchmarks/beside_llama_cpp.py [--length 40] [--model FILE.gguf]

Tiny models with random weights, one for each architecture and scaling that is written, leave in
float32 and are run by llama.cpp with a float32 cache. Their logits must be within 1e-4 of ours;
GPT-2's within 2e-3, for llama.cpp looks GELU up in a table of halves. Tokenizers must give the same
numbers for a hard text. With `--model` a whole model is brought through instead: imported, exported
in float32, and compared.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama_cpp import Llama

from coterie.exchange.gguf import export_file, import_file
from coterie.model import Decoder, DecoderSettings
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import parse_tokenizer

HARD = (
    "Hello  world!\n\n  It's 12345 o'clock — naïve café 🙂👩‍👩‍👧 \tHE'LL pay £3.50?! "
    "<|endoftext|>日本語テキスト Ωμέγα\r\n\r\n   \n x  \n  end"
)
GROUPED = {"kind": "grouped", "heads": 2, "kv_heads": 1, "head_dim": 16}
NORMED = {**GROUPED, "query_key_norm": "rms"}
LATENT = {"kind": "mla", "heads": 2, "kv_rank": 16, "nope_dim": 16, "rope_dim": 8, "value_dim": 16}
EXPERTS = {
    "kind": "moe",
    "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 32}}],
    "experts_per_token": 2,
}
V3 = {
    "score": "sigmoid",
    "scale": 2.5,
    "select": {
        "kind": "group_limited", "groups": 2, "groups_per_token": 1, "group_score": "top_two_sum",
    },
}  # fmt: skip
SHARED_64 = {"shared_experts": 1, "shared_mlp": {"kind": "gated", "width": 64}}
SHARPER = (0.1 * math.log(4.0) + 1.0) ** 2  # as DeepSeek's mscale_all_dim of 1 asks for
YARN = {"kind": "yarn", "factor": 4.0, "original_context": 16}


def rotary(**scaling: Any) -> dict[str, Any]:
    """Return the settings of scaled rotary positions."""
    return {"kind": "rotary", "scaling": scaling}


MODELS: dict[str, dict[str, Any]] = {
    "llama": {"attention": GROUPED},
    "llama, biases, tied": {"attention": {**GROUPED, "bias": True}, "head": {"tied": True}},
    "llama, neighbours paired": {
        "attention": GROUPED, "position": {"kind": "rotary", "layout": "interleaved"},
    },
    "llama, linear": {"attention": GROUPED, "position": rotary(kind="linear", factor=4.0)},
    "llama, ntk": {"attention": GROUPED, "position": rotary(kind="ntk", factor=4.0)},
    "llama, yarn": {"attention": GROUPED, "position": rotary(**YARN)},
    "llama, llama3": {
        "attention": GROUPED,
        "position": rotary(kind="llama3", factor=8.0, original_context=128),
    },
    "mixtral": {"attention": GROUPED, "feedforward": EXPERTS},
    "qwen2": {"attention": {**GROUPED, "bias": "qkv"}},
    "qwen3": {"attention": NORMED},
    "qwen3moe": {"attention": NORMED, "feedforward": EXPERTS},
    "qwen2moe": {
        "attention": {**GROUPED, "bias": "qkv"},
        "feedforward": {**EXPERTS, **SHARED_64, "shared_gate": True,
                        "router": {"renormalise": False}},
    },
    "olmoe": {
        "attention": {**NORMED, "kv_heads": 2, "query_key_norm_over": "all"},
        "feedforward": {**EXPERTS, "router": {"renormalise": False}},
    },
    "gpt2": {
        "attention": {"kind": "grouped", "heads": 4, "bias": True}, "position": "learned",
        "norm": "layer", "head": {"tied": True},
        "feedforward": {"kind": "dense",
                        "mlp": {"kind": "mlp", "activation": "gelu_tanh", "bias": True}},
    },
    "deepseek-v2": {
        "attention": LATENT, "feedforward": {**EXPERTS, **SHARED_64},
        "position": {"kind": "rotary", "layout": "interleaved",
                     "scaling": {**YARN, "attention_factor": 1.0, "logit_factor": SHARPER}},
    },
    "deepseek-v3": {
        "attention": {**LATENT, "query_rank": 16}, "opening": ["dense"],
        "blocks": {"dense": {"feedforward": {"kind": "dense"}}},
        "feedforward": {**EXPERTS, "shared_experts": 2, "router": V3, "balance": "bias"},
    },
}  # fmt: skip


def made(settings: dict[str, Any]) -> Decoder:
    """Return a tiny decoder of random weights."""
    common = {"layers": 2, "width": 32, "context": 64, "vocab_size": 272}
    decoder = DecoderSettings.model_validate({**common, **settings}).build().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in decoder.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator) * 0.1
            tensor.copy_(noise + 1 if "norm" in name and name.endswith("weight") else noise)
    return decoder


def run_there(path: Path, ids: list[int], context: int) -> np.ndarray:
    """Return the logits [T, V] that llama.cpp computes."""
    model = Llama(
        str(path), n_ctx=context, n_batch=context, n_threads=1, logits_all=True, verbose=False,
        type_k=0, type_v=0,
    )  # fmt: skip
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def compare(decoder: Decoder, path: Path, ids: list[int]) -> tuple[float, float]:
    """Return how far logits are apart at most, and the largest of ours."""
    with torch.no_grad():
        ours = decoder(torch.tensor([ids])).logits[0].numpy()
    theirs = run_there(path, ids, max(64, len(ids) + 8))
    return float(np.abs(ours - theirs).max()), float(np.abs(ours).max())


def compare_tokens(tokenizer: Tokenizer, path: Path) -> bool:
    """Whether llama.cpp reads a hard text as the same tokens."""
    model = Llama(str(path), vocab_only=True, verbose=False)
    theirs = model.tokenize(HARD.encode(), add_bos=False, special=True)
    return theirs == tokenizer.encode(HARD)


def all_models(root: Path, length: int) -> bool:
    """Compare every architecture; print a table."""
    ids = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    good = True
    print(f"{'model':28}{'architecture':14}{'apart':>10}{'largest':>10}")
    for number, (name, settings) in enumerate(MODELS.items()):
        decoder = made(settings)
        tokenizer = parse_tokenizer("bytes").build()
        path = export_file(decoder, tokenizer, root / f"{number}.gguf", dtype="f32")
        apart, largest = compare(decoder, path, ids)
        architecture = import_file(path).architecture
        good &= apart < (2e-3 if architecture == "gpt2" else 1e-4)
        print(f"{name:28}{architecture:14}{apart:10.1e}{largest:10.2f}")
    return good


def all_tokenizers(root: Path) -> bool:
    """Compare every kind of tokenizer that is written; print a table."""
    good = True
    for name in ("bytes", "bpe:400", "gpt2", "cl100k_base", "o200k_base"):
        tokenizer = parse_tokenizer(name).build([HARD * 8])
        settings = {"layers": 1, "width": 8, "context": 8, "vocab_size": tokenizer.vocab_size}
        decoder = DecoderSettings.model_validate(settings | {"head": {"tied": True}}).build()
        path = export_file(decoder, tokenizer, root / f"{name.replace(':', '-')}.gguf")
        same = compare_tokens(tokenizer, path)
        good &= same
        print(f"tokenizer {name:18}{'the same tokens' if same else 'OTHER TOKENS'}")
    return good


def whole_model(file: Path, root: Path) -> bool:
    """Bring a whole model through and compare it; print the result."""
    imported = import_file(file)
    assert imported.tokenizer is not None, imported.notes
    path = export_file(imported.decoder, imported.tokenizer, root / "model.gguf", dtype="f32")
    ids = imported.tokenizer.encode("The capital of France is Paris. To be, or not to be: 1601.")
    apart, largest = compare(imported.decoder, path, ids)
    same = compare_tokens(imported.tokenizer, path)
    print(f"{file.name}: logits apart by {apart:.1e} of {largest:.1f}; tokens equal: {same}")
    return same and apart < 2e-3 * largest


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=40, help="tokens of a text")
    parser.add_argument("--model", type=Path, help="a whole model in place of the tiny ones")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if arguments.model is not None:
            good = whole_model(arguments.model, root)
        else:
            good = all_models(root, arguments.length)
            good &= all_tokenizers(root)
    print("passed" if good else "FAILED")
    sys.exit(not good)


if __name__ == "__main__":
    main()
