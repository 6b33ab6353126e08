"""What the engine's loop costs beside the model: scheduling, sampling and text.

    python benchmarks/loop.py [--batches 1 4 16 64] [--tokens 64] [--rounds 3]

A pass that returns the same logits at once takes the model's place (its vocabulary is 8,192), for
prompts of 24 to 40 tokens that come at once. Printed is the fastest of some rounds, for other work
on the machine only makes one slower. `coterie benchmark decode --batch` measures with a model.
"""

from __future__ import annotations

import argparse
import time

import torch

from coterie.benchmark import standard_model
from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.passes import Call

VOCABULARY = 8192


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    decoder, tokenizer = standard_model("17M")
    for temperature in (0.0, 0.8):
        shown = []
        for batch in asked.batches:
            idle, taken = Idle(), []
            engine = Engine(decoder, tokenizer, passes=[idle])
            for _ in range(asked.rounds):
                idle.steps, begin = 0, time.perf_counter()
                for _ in engine.run(requests_of(batch, asked.tokens, temperature)):
                    pass
                taken.append((time.perf_counter() - begin) / idle.steps)
            shown.append(f"{batch}: {min(taken) * 1e6:,.0f}")
        print(f"temperature {temperature}, µs per step by batch: {', '.join(shown)}")


if __name__ == "__main__":
    main()
