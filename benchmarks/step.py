"""Training steps of small mixtures beside `transformers` and the dense twin, in turns.

    python benchmarks/step.py [coarse|fine|eight|sixty-four] [--rounds 7] [--precision float32]
        [--ways ours,grouped_mm,twin] [--compile] [--memory] [key=value …]

One step is a batch of 2,048 tokens: forward, backward, norm of all gradients, fused AdamW. Shapes:
4 layers, 512 wide, 8 heads, a vocabulary of 8,192; *coarse* 7 routed experts of 768 and a shared
one, 2 a token; *fine* 63 of 128 and a shared one, 8 a token; *eight* and *sixty-four* 8 of 512,
2 a token, and 64 of 128, 8 a token. The dense twin has the same active parameters. `transformers`
is Qwen2-MoE with each of its expert implementations. Shares are of the 2048³ product rate measured
between the rounds, in the same precision. `--memory` takes three steps of each in a process of its
own instead, and prints the peak. Words change our settings, `model.feedforward.kernel=loop` say.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coterie.foundation.errors import require
from coterie.foundation.layers import Layer, load_settings, overrides_layer
from coterie.foundation.runs import RunDirectory
from coterie.train.machine import measure_matmul
from coterie.train.plan import step_flops
from coterie.train.precision import resolve_precision
from coterie.train.session import open_session
from coterie.train.settings import RunSettings

LAYERS, WIDTH, CONTEXT, ROWS, VOCABULARY = 4, 512, 512, 4, 8192
SHAPES = {  # experts, their width, experts per token, shared experts
    "coarse": (7, 768, 2, 1),
    "fine": (63, 128, 8, 1),
    "eight": (8, 512, 2, 0),
    "sixty-four": (64, 128, 8, 0),
}
PEERS = ("eager", "batched_mm", "grouped_mm")
Step = Callable[[], None]


def settings_of(options: argparse.Namespace, twin: bool) -> RunSettings:
    """Return our settings of a shape, or of its dense twin."""
    count, width, per_token, shared = SHAPES[options.shape]
    dense = {"kind": "dense", "mlp": {"kind": "gated", "width": width * (per_token + shared)}}
    mixture = {
        "kind": "moe", "experts": [{"count": count, "mlp": {"kind": "gated", "width": width}}],
        "experts_per_token": per_token, "shared_experts": shared,
    }  # fmt: skip
    base = {
        "data": {"source": str(options.text), "split": "tail"}, "tokenizer": "characters",
        "model": {
            "layers": LAYERS, "width": WIDTH, "context": CONTEXT, "vocab_size": VOCABULARY,
            "attention": {"kind": "grouped", "heads": 8}, "head": {"tied": False},
            "feedforward": dense if twin else mixture,
        },
        "train": {
            "batch_size": ROWS, "steps": 1000, "precision": options.precision, "device": "cpu",
            "compile": options.compile, "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
        },
    }  # fmt: skip
    words = [] if twin else options.words
    return load_settings(RunSettings, [Layer("shape", base), overrides_layer(words)]).settings


def ours(options: argparse.Namespace, twin: bool = False) -> tuple[Step, float]:
    """Return a step of ours and its operations."""
    run = RunDirectory.create(Path(tempfile.mkdtemp(dir=options.folder)), "run")
    session = open_session(settings_of(options, twin), run)
    batches, taken = session.loader().iterate(0), iter(range(1 << 30))

    def step() -> None:
        float(session.stepper(next(taken), next(batches)).metrics.loss)

    return step, step_flops(session.settings)


def peer(options: argparse.Namespace, experts: str) -> tuple[Step, float]:
    """Return a step of `transformers`; its operations are counted as ours."""
    library = require("transformers", "test")
    count, width, per_token, shared = SHAPES[options.shape]
    config = library.Qwen2MoeConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=8,
        num_key_value_heads=8, intermediate_size=width, moe_intermediate_size=width,
        shared_expert_intermediate_size=max(width * shared, 8), num_experts=count,
        num_experts_per_tok=per_token, norm_topk_prob=True, decoder_sparse_step=1,
        max_position_embeddings=CONTEXT, tie_word_embeddings=False, use_cache=False,
        output_router_logits=False, attn_implementation="sdpa",
    )  # fmt: skip
    model = library.Qwen2MoeForCausalLM(config).train()
    model.set_experts_implementation(experts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if options.compile else model
    generator = torch.Generator().manual_seed(0)
    half = options.precision != "float32"

    def step() -> None:
        tokens = torch.randint(VOCABULARY, (ROWS, CONTEXT), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss: Tensor = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())

    return step, step_flops(settings_of(options, twin=False))


def build(options: argparse.Namespace, way: str) -> tuple[Step, float]:
    """Return a step by the name of its way, and its operations."""
    return peer(options, way) if way in PEERS else ours(options, twin=way == "twin")


def in_turns(options: argparse.Namespace) -> None:
    """Print each way's rate, its share of the ceiling and its ratio to ours, pair by pair."""
    steps = {way: build(options, way) for way in options.ways}
    for step, _ in steps.values():
        step()
        step()
    precision = resolve_precision(options.precision, torch.device("cpu"))
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    ceilings = []
    for _ in range(options.rounds):
        ceilings.append(measure_matmul(precision, 0.5))
        for way, (step, _) in steps.items():
            begin = time.perf_counter()
            step()
            seconds[way].append(time.perf_counter() - begin)
    ceiling, tokens = max(ceilings), ROWS * CONTEXT
    usual = statistics.median(ceilings) / 1e9
    print(f"{options.shape}, {options.precision}, {torch.get_num_threads()} threads, ceiling "
          f"{ceiling / 1e9:,.0f} GFLOP/s (median {usual:,.0f})")  # fmt: skip
    first = seconds[options.ways[0]]
    for way, (_, flops) in steps.items():
        median, spread = statistics.median(seconds[way]), statistics.quantiles(seconds[way], n=4)
        ratios = [other / own for own, other in zip(first, seconds[way], strict=True)]
        print(f"{way:12} {tokens / median:8,.0f} tokens/s (quartiles {tokens / spread[2]:,.0f} to "
              f"{tokens / spread[0]:,.0f})  {flops / median / ceiling:6.1%} of the ceiling  "
              f"{options.ways[0]} is {statistics.median(ratios):.3f}× as fast "
              f"({min(ratios):.3f} to {max(ratios):.3f})")  # fmt: skip


def memory(options: argparse.Namespace) -> None:
    """Print the peak of three steps of each way in a process of its own."""
    for way in options.ways:
        words = [sys.executable, __file__, options.shape, "--precision", options.precision,
                 "--ways", way, "--alone", *options.words]  # fmt: skip
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        print(f"{way:12} {told.strip()}")


def alone(options: argparse.Namespace) -> None:
    """Take three steps and print the peak of this process, and what it had before them."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step, _ = build(options, options.ways[0])
    for _ in range(3):
        step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{peak / 1024:,.0f} MiB, {(peak - before) / 1024:,.0f} above the bare imports")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("shape", choices=SHAPES, nargs="?", default="coarse")
    parser.add_argument("words", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--ways", default=",".join(("ours", *PEERS, "twin")))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options: Any = parser.parse_intermixed_args()
    options.ways = options.ways.split(",")
    with tempfile.TemporaryDirectory() as folder:
        options.folder, options.text = Path(folder), Path(folder, "words.txt")
        options.text.write_text("the king of the north and the fool of the south\n" * 4000)
        (alone if options.alone else memory if options.memory else in_turns)(options)


if __name__ == "__main__":
    main()
