"""What a factorised embedding saves, and what it costs in loss, beside the full one.

    python benchmarks/embedding.py [--vocabulary 4096] [--steps 600] [--seeds 2] [--untied]

First the memory of both at yinghub's size (GPT-2's 50,257 tokens and the drama tags, width 192,
rank 64), by the decoder's own parameters: weights, gradients and AdamW's two moments. Then both are
trained for equal steps on the plays, by `coterie.train` and with equal seeds, and their validation
losses compared. `--vocabulary gpt2` trains with the whole vocabulary, whose head takes most of the
time; a number trains a BPE of that many tokens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from coterie.foundation.runs import RunDirectory
from coterie.language.drama.tags import TAG_NAMES
from coterie.model import DecoderSettings
from coterie.train import RunSettings, train

TAGS = [f"<{slash}{name}>" for name in TAG_NAMES for slash in ("", "/")]
YINGHUB_VOCABULARY = 50_257 + len(TAGS)
COPIES = 4  # of each value: weight, gradient, two moments of AdamW
FULL, FACTORISED = "full", "factorised"


def model(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a decoder that differs in its embedding alone."""
    embedding = {"kind": kind} | ({"rank": options.rank} if kind == FACTORISED else {})
    return {
        "layers": options.layers,
        "width": options.width,
        "context": 96,
        "embedding": embedding,
        "position": "learned",
        "attention": {"kind": "grouped", "heads": 6},
        "head": {"tied": not options.untied},
    }


def measure_memory(options: argparse.Namespace) -> None:
    """Print the parameters and bytes of embedding with head, and of everything."""
    sizes = {}
    for kind in (FULL, FACTORISED):
        settings = DecoderSettings.model_validate(
            model(kind, options) | {"vocab_size": YINGHUB_VOCABULARY}
        )
        with torch.device("meta"):
            decoder = settings.build()
        numbers = {name: each.numel() for name, each in decoder.named_parameters()}
        words = sum(
            number for name, number in numbers.items() if name.startswith(("embedding.", "head."))
        )
        sizes[kind] = words, sum(numbers.values())
    tied = "an untied head" if options.untied else "a tied head"
    print(f"\nmemory at {YINGHUB_VOCABULARY:,} tokens, width {options.width}, {tied}, float32")
    print(f"{'':34}{FULL:>12}{FACTORISED:>14}{'saved':>8}")
    for row, what in enumerate(("embedding and head", f"whole model of {options.layers} layers")):
        one, other = sizes[FULL][row], sizes[FACTORISED][row]
        saved = f"{100 * (1 - other / one):7.1f}%"
        print(f"{what + ', parameters':34}{one:12,}{other:14,}{saved}")
        one, other = one * 4 / 2**20, other * 4 / 2**20
        print(f"{'  weights, MiB':34}{one:12.1f}{other:14.1f}{saved}")
        one, other = one * COPIES, other * COPIES
        print(f"{'  with gradients and moments, MiB':34}{one:12.1f}{other:14.1f}{saved}")


def run_settings(kind: str, seed: int, options: argparse.Namespace) -> RunSettings:
    """Return the settings of one training run."""
    tokenizer = (
        {"kind": "tiktoken", "encoding": "gpt2"}
        if options.vocabulary == "gpt2"
        else {"kind": "bpe", "vocab_size": int(options.vocabulary)}
    )
    return RunSettings.model_validate(
        {
            "seed": seed,
            "data": {"source": "shakespeare", "valid_fraction": 0.03, "split": "documents"},
            "tokenizer": tokenizer | {"special_tokens": TAGS},
            "model": model(kind, options),
            "train": {
                "steps": options.steps,
                "batch_size": options.batch_size,
                "optimizer": {"kind": "adamw", "learning_rate": 2e-3},
                "evaluate_every": 0,
                "checkpoint_every": 0,
                "sample_every": 0,
            },
        }
    )


def measure_loss(options: argparse.Namespace) -> None:
    """Train both with each seed and print their validation losses."""
    tokens = options.steps * options.batch_size * 96
    print(
        f"\nvalidation loss, nats per token, after {options.steps:,} steps ({tokens:,} tokens), "
        f"vocabulary {options.vocabulary}"
    )
    print(f"{'seed':34}{FULL:>12}{FACTORISED:>14}{'more':>8}")
    losses: dict[str, list[float]] = {FULL: [], FACTORISED: []}
    seconds: dict[str, list[float]] = {FULL: [], FACTORISED: []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for kind in (FULL, FACTORISED):
                run = RunDirectory.create(Path(folder), f"{kind}-{seed}")
                result = train(run_settings(kind, seed, options), run, preset="benchmark")
                assert result.validation_loss is not None
                losses[kind].append(result.validation_loss)
                seconds[kind].append(result.seconds)
            _print_row(str(seed), losses[FULL][-1], losses[FACTORISED][-1])
    _print_row("mean", *(statistics.mean(losses[kind]) for kind in (FULL, FACTORISED)))
    if options.seeds > 1:
        spread = max(statistics.stdev(each) for each in losses.values())
        print(f"largest standard deviation over seeds: {spread:.4f} nats")
    times = [statistics.median(seconds[kind]) for kind in (FULL, FACTORISED)]
    print(f"{'seconds of training, median':34}{times[0]:12.1f}{times[1]:14.1f}")


def _print_row(name: str, full: float, factorised: float) -> None:
    print(f"{name:34}{full:12.4f}{factorised:14.4f}{100 * (factorised / full - 1):+7.2f}%")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", default="4096", help="gpt2, or the size of a BPE")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--untied", action="store_true", help="a head of its own, full in both")
    chosen = parser.parse_args()
    measure_memory(chosen)
    measure_loss(chosen)
