"""Generation on the device: every cache gives the same text, and the CPU's."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from typing import Any

import torch

from coterie.generate import Engine, Request, SamplingSettings
from coterie.model import Decoder, count
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN
from gpu_checks import names
from gpu_checks.correct import PARTS, WINDOW
from gpu_checks.machine import read_rate
from gpu_checks.registry import Bench, Cases, CasesError, check

_PROMPT = 40
ALPHABET = 0x10000  # of single characters, as many as any vocabulary has
NOTES: list[str] = []  # what engines say of how they decode
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
    alphabet = "".join(chr(ALPHABET + number) for number in range(size - 2))
    tokenizer = CharacterTokenizer(alphabet, [END_OF_TEXT, UNKNOWN])
    return Engine(copy.deepcopy(decoder).to(device), tokenizer, NOTES.append)


def write(
    engine: Engine, tokens: int, cache: str = "full", prompt: int = _PROMPT, **changes: Any
) -> Any:
    """Write greedily and return the generation."""
    sampling = {"temperature": 0, "max_tokens": tokens, "cache": cache} | changes
    text = "".join(chr(ALPHABET + 7 * n % 90) for n in range(prompt))
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
                "full": write(engine, length),  # on CUDA a graph
                "torch": write(engine, length, compute="torch"),
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


SMOLLM2 = {
    "layers": 30, "width": 576, "vocab_size": 49152, "head": {"tied": True},
    "attention": {"kind": "grouped", "heads": 9, "kv_heads": 3}, "feedforward": names.dense(1536),
}  # fmt: skip
"""The shape of SmolLM2-135M, whose config.json says so."""
BILLION = {
    "layers": 16, "width": 2048, "vocab_size": 32768,
    "attention": {"kind": "grouped", "heads": 16, "kv_heads": 4}, "feedforward": names.dense(5632),
}  # fmt: skip
MIXTURE = {
    "layers": 12, "width": 1024, "vocab_size": 32768,
    "attention": {"kind": "grouped", "heads": 16, "kv_heads": 4},
    "feedforward": names.moe(64, 512, 8),
}  # fmt: skip


@check("generate.tests", "train", limit=150)
def tests(bench: Bench) -> dict[str, Any]:
    """Run the engine's tests for any device on it."""
    environment = os.environ | {"COTERIE_TEST_DEVICE": bench.device}
    # Another torch warns of other things, and our kernels serve CPUs alone.
    few = ["-k", "stop or greedy"] if bench.tiny else ["-k", "not NativePass"]
    marked = "any_device and not exhaustive"
    command = [sys.executable, "-m", "pytest", "tests/generate", "-n", "12", "-m", marked, "-p",
               "no:cacheprovider", "-o", "filterwarnings=", "--tb=short", *few]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (bench.out / "tests.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    lines = done.stdout.splitlines()
    failed = [line[:200] for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        raise CasesError("\n".join(failed) or done.stdout[-500:], {"last": lines[-1:]})
    return {"last": lines[-1:]}


@check("speed.decode", "speed", limit=220)
def decode(bench: Bench) -> dict[str, Any]:
    """Tokens per second in bfloat16, and the share of what reading the active weights allows.

    `torch` launches kernel by kernel, `auto` repeats a CUDA graph, `compiled` one of compiled
    blocks; of several texts together all their tokens count.
    """
    shapes: dict[str, dict[str, Any]] = {
        "s15era": names.preset("s15era"), "SmolLM2": SMOLLM2, "1 B dense": BILLION,
        "12 × 1024, 8 of 64 experts": MIXTURE,
    }  # fmt: skip
    if bench.tiny:
        shapes = {"tiny": {}}
    cases = Cases(bench)
    for shape, changes in shapes.items():
        decoder = names.decoder_settings(**changes | {"context": 1024}).build().eval()
        decoder.to(torch.bfloat16 if bench.cuda else torch.float32)
        engine = engine_of(decoder, bench.device)
        active = count(decoder.settings).active_parameters * (2 if bench.cuda else 4)
        for compute in ("torch", "auto", "compiled"):
            if compute == "compiled" and changes is MIXTURE:
                continue  # the compiler would take most of the time there is
            for texts in (1, 16) if compute != "compiled" else (1,):
                name = f"{shape} {compute} {texts}"
                with cases(name):
                    tokens = 4 if bench.tiny else 16 if compute == "torch" else 256
                    begin = time.perf_counter()
                    made = timed(engine, compute, texts, tokens)
                    first = time.perf_counter() - begin
                    rates = [timed(engine, compute, texts, tokens) for _ in range(3)]
                    rate = sorted(rates)[1]
                    cases.figures[name] = {
                        "tokens/s": round(rate, 1), "of one": round(rate / texts, 1),
                        "share of bound": round(rate / texts * active / 1e9 / read_rate(bench), 4),
                        "first": round(made, 1), "first s": round(first, 1),
                        "active MB": round(active / 1e6), "notes": NOTES[:],
                    }  # fmt: skip
                NOTES.clear()
        del engine, decoder
    return cases.result()


def timed(engine: Engine, compute: str, texts: int, tokens: int) -> float:
    """Return how many tokens per second come after the first one of each text."""
    sampling = SamplingSettings.model_validate(
        {"temperature": 0, "max_tokens": tokens, "min_tokens": 0, "compute": compute}
    )
    word = "".join(chr(ALPHABET + 7 * n % 90) for n in range(_PROMPT))
    requests = [Request(word + chr(ALPHABET + n), sampling, n) for n in range(texts)]
    begun, end = None, 0.0
    number = 0
    for _, piece in engine.run(requests):
        if piece.error is not None:
            raise piece.error
        end = time.perf_counter()
        number += 1
        begun = end if number == texts else begun
    assert begun is not None
    return (number - texts) / (end - begun)
