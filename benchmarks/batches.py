"""Tokens per second and time to first token of several requests at once, and the loop's own cost.

    python benchmarks/batches.py [--batches 1 4 16 64] [--tokens 24] [--rounds 3] [--threads 2]

The model is that of `decode.py` (8 layers, 512 wide, 29 M active). Prompts of 24 to 40 tokens come
at once; the sizes run in turns, and printed are medians and ranges. The loop's own cost is measured
with a pass that returns the same logits at once: what is left is scheduling, sampling and text.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from decode import VOCABULARY, build_ours

from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.passes import Call
from coterie.model import Decoder
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN


class Idle:
    """A pass that computes nothing."""

    def __init__(self) -> None:
        self._logits = torch.randn(64, 1, VOCABULARY, generator=torch.Generator().manual_seed(0))
        self.steps = 0

    def refuses(self, call: Call) -> None:
        """Return None: it serves every call."""

    def read(self, call: Call) -> torch.Tensor:
        """Return the same logits for every row; nothing is kept, and nothing asked for."""
        assert call.cache is not None
        rows = call.cache.place(call.tokens, call.lengths)
        call.cache.extend(call.tokens, rows)
        self.steps += 1
        return self._logits[: len(call.tokens)]


def requests_of(number: int, tokens: int, temperature: float) -> list[Request]:
    """Return as many requests with prompts of 24 to 40 tokens."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(0, VOCABULARY - 2, (number, 40), generator=generator).tolist()
    settings = SamplingSettings(temperature=temperature, max_tokens=tokens)
    return [Request(p[: 24 + 5 * n % 17], settings, n) for n, p in enumerate(prompts)]


def measure(engine: Engine, requests: list[Request]) -> tuple[float, float]:
    """Return tokens per second after the first of every text, and the mean time to first token."""
    begin, firsts, count, late = time.perf_counter(), {}, 0, 0.0
    for request, _ in engine.run(requests):
        now = time.perf_counter()
        if id(request) not in firsts:
            firsts[id(request)] = now - begin
            late = now
        else:
            count += 1
    return count / (time.perf_counter() - late), statistics.mean(firsts.values())


def tokenizer() -> CharacterTokenizer:
    """Return one of as many tokens as the model."""
    alphabet = "".join(chr(0x4E00 + number) for number in range(VOCABULARY - 2))
    return CharacterTokenizer(alphabet, [END_OF_TEXT, UNKNOWN])


def print_overhead(decoder: Decoder, batches: list[int], tokens: int) -> None:
    """Print what one step of the loop costs without the model."""
    for temperature in (0.0, 0.8):
        shown = []
        for batch in batches:
            idle = Idle()
            engine = Engine(decoder, tokenizer(), passes=[idle])
            for _ in range(2):  # the first is the warm-up
                idle.steps, begin = 0, time.perf_counter()
                for _ in engine.run(requests_of(batch, tokens, temperature)):
                    pass
                seconds = time.perf_counter() - begin
            shown.append(f"{batch}: {seconds / idle.steps * 1e6:,.0f}")
        print(f"loop alone, temperature {temperature}, µs per step by batch: {', '.join(shown)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--overhead", action="store_true", help="measure the loop alone")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    decoder = build_ours(8, context=512)
    print_overhead(decoder, asked.batches, 64)
    if asked.overhead:
        return
    engine = Engine(decoder, tokenizer())
    list(engine.run(requests_of(4, 3, 0.8)))
    found: dict[int, list[tuple[float, float]]] = {batch: [] for batch in asked.batches}
    for _ in range(asked.rounds):
        for batch, results in found.items():
            results.append(measure(engine, requests_of(batch, asked.tokens, 0.8)))
    print(f"{'batch':>6}{'tokens/s':>10}   {'range':14}{'first token, s':>15}   range")
    for batch, results in found.items():
        rates, firsts = zip(*results, strict=True)
        print(
            f"{batch:6}{statistics.median(rates):10.1f}   {min(rates):.1f}–{max(rates):<8.1f}"
            f"{statistics.median(firsts):13.2f}   {min(firsts):.2f}–{max(firsts):.2f}"
        )


if __name__ == "__main__":
    main()
