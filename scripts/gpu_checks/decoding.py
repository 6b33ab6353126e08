"""Generation on the device: every cache gives the same text, and the CPU's."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

from coterie.generate import Engine, SamplingSettings
from coterie.model import Decoder, count
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN
from gpu_checks import names
from gpu_checks.correct import PARTS, WINDOW
from gpu_checks.machine import read_rate
from gpu_checks.registry import Bench, Cases, check

_PROMPT = 40
WAYS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "window": {"attention": WINDOW},
    "experts": {"feedforward": names.moe(8, 96, 2, shared_experts=1)},
    "mla": PARTS["mla"],
    "latent vectors": PARTS["latent vectors"],
}  # fmt: skip


def engine_of(decoder: Decoder, device: str) -> Engine:
    """Return an engine whose tokenizer has one character for each token."""
    size = decoder.settings.known_vocab_size()
    alphabet = "".join(chr(0x4E00 + number) for number in range(size - 2))
    tokenizer = CharacterTokenizer(alphabet, [END_OF_TEXT, UNKNOWN])
    return Engine(copy.deepcopy(decoder).to(device), tokenizer)


def write(engine: Engine, tokens: int, cache: str = "full", prompt: int = _PROMPT) -> Any:
    """Write greedily and return the generation."""
    sampling = {"temperature": 0, "max_tokens": tokens, "cache": cache}
    text = "".join(chr(0x4E00 + 7 * n % 90) for n in range(prompt))
    return engine.generate(text, SamplingSettings.model_validate(sampling))


@check("generate.caches", "correct")
def caches(bench: Bench) -> dict[str, Any]:
    """Tokens and their log-probabilities with a cache, without one, and on the CPU."""
    cases = Cases(bench)
    for way, changes in bench.some(WAYS.items(), 3):
        with cases(way):
            decoder = names.build(names.decoder_settings(**changes))
            engine = engine_of(decoder, bench.device)
            length = 6 if bench.tiny else 48
            plain = write(engine, length, "none")
            others = {
                "full": write(engine, length),
                "cpu": write(engine_of(decoder, "cpu"), length),
            }
            if way == "window":
                others["window"] = write(engine, length, "window")
            far = {}
            for name, made in others.items():
                pairs = zip(plain.logprobs, made.logprobs, strict=True)
                far[name] = max(abs(one - other) for one, other in pairs)
                assert made.tokens == plain.tokens, f"other tokens: cache none against {name}"
                assert far[name] < 1e-3, f"log-probabilities off by {far[name]:.1e}: {name}"
            cases.figures[way] = far
    return cases.result()


@check("speed.decode", "speed", limit=90)
def decode(bench: Bench) -> dict[str, Any]:
    """Tokens per second of one greedy stream, and the share of what reading the weights allows."""
    shapes: dict[str, tuple[dict[str, Any], int]] = {
        "8 × 512, 2 of 8 experts": (
            {"layers": 8, "width": 512, "vocab_size": 8192,
             "attention": {"kind": "grouped", "heads": 8, "kv_heads": 4},
             "feedforward": names.moe(8, 768, 2)}, 96),
        "12 × 1024, 8 of 64 experts": (
            {"layers": 12, "width": 1024, "vocab_size": 8192,
             "attention": {"kind": "grouped", "heads": 16, "kv_heads": 4},
             "feedforward": names.moe(64, 512, 8)}, 48),
    }  # fmt: skip
    if bench.tiny:
        shapes = {"tiny": ({}, 4)}
    cases = Cases(bench)
    for shape, (changes, tokens) in shapes.items():
        decoder = names.decoder_settings(context=512, **changes).build().eval()
        for dtype in (torch.bfloat16,) if "1024" in shape else (torch.float32, torch.bfloat16):
            name = f"{shape} {str(dtype).removeprefix('torch.')}"
            with cases(name):
                engine = engine_of(decoder.to(dtype), bench.device)
                write(engine, 8)
                rates = []
                for _ in range(1 if bench.tiny else 3):
                    begin = time.perf_counter()
                    write(engine, tokens)
                    rates.append(tokens / (time.perf_counter() - begin))
                rate = sorted(rates)[len(rates) // 2]
                active = count(decoder.settings).active_parameters * dtype.itemsize
                cases.figures[name] = {
                    "tokens/s": round(rate, 1),
                    "share of bound": round(rate * active / 1e9 / read_rate(bench), 4),
                }
    return cases.result()
