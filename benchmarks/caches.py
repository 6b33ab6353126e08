"""What each KV cache costs and keeps: time, memory, a passkey, prefixes, perplexity.

    python benchmarks/caches.py speed [--contexts 256,4096] [--rounds 9] [--rows 1]
    python benchmarks/caches.py memory [--tokens 2000,10000,20000]
    python benchmarks/caches.py passkey [--file MODEL.gguf] [--length 800] [--keys 2]
    python benchmarks/caches.py prefixes [--rounds 5]
    python benchmarks/caches.py quality RUN [--characters 20000]

`speed` decodes with the benchmark's 17M mixture (float32), all caches in turns of 16 tokens, and
prints medians and the range of the ratio to `full` of the same turn. `memory` reads one text with a
model of 4 layers of 128, each cache in a process of its own. `passkey` hides a number in a long
text, at several depths, and asks SmolLM2-135M for it (see smollm2.py): the text is read in pieces,
the question comes afterwards.
`prefixes` compares `paged` with `full` where prompts begin alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from coterie.benchmark.decode import standard_model
from coterie.benchmark.turns import spread
from coterie.checkpoint import load_model
from coterie.data.corpus import shakespeare
from coterie.evaluate import cached_logprobs
from coterie.exchange.gguf import import_file
from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.passes import passes_for
from coterie.generate.session import DecodeSession
from coterie.model import Decoder, DecoderSettings
from coterie.tokenizer.interface import Tokenizer

CACHES = {
    "full": {"kind": "full"},
    "window, size 1024": {"kind": "window", "size": 1024},
    "window, size 256": {"kind": "window", "size": 256},
    "quantised": {"kind": "quantised"},
    "quantised, bits 4": {"kind": "quantised", "bits": 4},
    "pruned, size 512": {"kind": "pruned", "size": 512},
    "pruned, size 256": {"kind": "pruned", "size": 256},
    "pruned, size 256, heavy 0": {"kind": "pruned", "size": 256, "heavy": 0},
    "paged": {"kind": "paged"},
    "spilled": {"kind": "spilled"},
}
SUMMARIES = "full, layers that summarise"
TURN = 16
DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
FILLER = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
)


def sampling(cache: dict[str, object], **changes: object) -> SamplingSettings:
    """Return greedy settings with a cache."""
    return SamplingSettings.model_validate({"temperature": 0, "cache": cache, **changes})


def chosen(names: str) -> dict[str, dict[str, object]]:
    """Return the caches whose names contain one of some words; all for none."""
    words = [word for word in names.split(",") if word]
    return {
        name: cache for name, cache in CACHES.items() if not words or any(w in name for w in words)
    }


def longer(context: int) -> tuple[Decoder, Tokenizer]:
    """Return the benchmark's 17M mixture with another context."""
    decoder, tokenizer = standard_model("17M")
    changed = decoder.settings.model_copy(update={"context": context})
    return changed.build(torch.Generator().manual_seed(0)).eval(), tokenizer


def decoding(session: DecodeSession, rows: int) -> Callable[[], float]:
    """Return what decodes a turn greedily and says how many tokens a second that were."""
    last = [[1]] * rows

    def turn() -> float:
        nonlocal last
        begin = time.perf_counter()
        for _ in range(TURN):
            last = session.read(last).argmax(-1, keepdim=True).tolist()
        return rows * TURN / (time.perf_counter() - begin)

    return turn


def speed(arguments: argparse.Namespace) -> None:
    """Print tokens per second at each context."""
    contexts = [int(each) for each in arguments.contexts.split(",")]
    decoder, _ = longer(2 * max(contexts))
    for context in contexts:
        tokens = torch.randint(0, 8000, (context,), generator=torch.Generator().manual_seed(0))
        turns: dict[str, Callable[[], float]] = {}
        for name, cache in chosen(arguments.caches).items():
            for compute in ("torch", "native"):
                passes = passes_for(decoder, compute)
                session = DecodeSession(decoder, sampling(cache).cache, passes=passes)
                for piece in session.pieces(tokens.tolist()):
                    session.read([piece] * arguments.rows)
                turns[f"{name} | {compute}"] = decoding(session, arguments.rows)
        rates = in_turns(turns, arguments.rounds)
        print(f"context {context:,}, {arguments.rows} rows | compute | tokens/s | × full (range)")
        for name, own in rates.items():
            whole = rates[f"full | {name.split(' | ')[1]}"]
            middle, low, high = spread([a / b for a, b in zip(own, whole, strict=True)])
            rate = statistics.median(own)
            print(f"{name} | {rate:.1f} | {middle:.2f} ({low:.2f}–{high:.2f})", flush=True)


def in_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each way says in each round, after a warm-up."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def memory(arguments: argparse.Namespace) -> None:
    """Print what a text takes as it grows, each cache in a process of its own."""
    if arguments.one is None:
        print(f"cache | cache MB | resident MB more, at {arguments.tokens} tokens", flush=True)
        for name in [*chosen(arguments.caches), SUMMARIES]:
            own = ["--one", name, "--tokens", arguments.tokens]
            subprocess.run([sys.executable, __file__, "memory", *own], check=True)
        return
    summarised = arguments.one == SUMMARIES
    changes = {"attention": {"kind": "latent_vectors", "heads": 4}} if summarised else {}
    values = {"layers": 4, "width": 128, "context": 32768, "vocab_size": 8000, **changes}
    decoder = DecoderSettings.model_validate(values).build().eval()
    session = DecodeSession(decoder, sampling(CACHES.get(arguments.one, {"kind": "full"})).cache)
    generator = torch.Generator().manual_seed(0)
    read, begun, found = 0, 0, []
    for length in map(int, arguments.tokens.split(",")):
        while read < length:
            count = min(64, length - read)
            session.read(torch.randint(0, 8000, (1, count), generator=generator))
            read += count
            begun = begun or resident()
        found.append((session.cache_nbytes / 1e6, (resident() - begun) / 1e6))
    held, more = zip(*found, strict=True)
    shown = " / ".join(f"{each:.1f}" for each in held), " / ".join(f"{each:.0f}" for each in more)
    print(f"{arguments.one} | {shown[0]} | {shown[1]}", flush=True)


def resident() -> int:
    """Return the memory of this process that is in use, in bytes."""
    found = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True
    )
    return 1024 * int(found.stdout)


def passkey(arguments: argparse.Namespace) -> None:
    """Print at which depths each cache still knows a number."""
    imported = import_file(arguments.file)
    decoder, tokenizer = imported.decoder, imported.tokenizer
    assert tokenizer is not None, imported.notes
    begin = tokenizer.start_of_text
    filler = tokenizer.encode(FILLER)
    print(f"cache | depth {' | '.join(map(str, DEPTHS))}, of {arguments.keys} keys each")
    for name, cache in chosen(arguments.caches).items():
        scores = []
        for depth in DEPTHS:
            right = 0
            for number in range(arguments.keys):
                key = str(48213 + 9377 * number)
                hidden = tokenizer.encode(
                    f"The pass key is {key}. Remember it. {key} is the pass key. "
                )
                copies = arguments.length // len(filler)
                before = round(copies * depth)
                text = [*filler * before, *hidden, *filler * (copies - before)]
                text = text if begin is None else [begin, *text]
                question = tokenizer.encode("What is the pass key? The pass key is")
                session = DecodeSession(decoder, sampling(cache).cache)
                for at in range(0, len(text), 128):
                    session.read([text[at : at + 128]])
                written = [int(session.read([question])[0].argmax())]
                while len(written) < 8:
                    written.append(int(session.read([written[-1:]])[0].argmax()))
                right += key in tokenizer.decode(written)
            scores.append(str(right))
        print(f"{name} | {' | '.join(scores)}", flush=True)


def prefixes(arguments: argparse.Namespace) -> None:
    """Print what requests take that begin alike, with `paged` and with `full`."""
    decoder, tokenizer = standard_model("17M")
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> list[int]:
        return torch.randint(0, 8000, (count,), generator=generator).tolist()

    system, turns = drawn(1024), [drawn(32) for _ in range(8)]
    settings = {
        kind: sampling({"kind": kind}, max_tokens=16, min_tokens=16, compute="torch")
        for kind in ("full", "paged")
    }

    def requests(engine: Engine, own: SamplingSettings) -> list[float]:
        asked = [Request([*system, *turn], own) for turn in turns]
        return [value for each in engine.generate_many(asked) for value in each.logprobs]

    def chat(engine: Engine, own: SamplingSettings) -> list[float]:
        said, found = list(system), []
        for turn in turns:
            said += turn
            [answer] = engine.generate_many([Request(tuple(said), own)])
            said += answer.tokens
            found += answer.logprobs
        return found

    def samples(engine: Engine, own: SamplingSettings) -> list[float]:
        drawn = own.model_copy(update={"temperature": 1.0})
        made = engine.generate_many([Request(system, drawn, seed) for seed in range(8)])
        return [value for each in made for value in each.logprobs]

    print("task | full s | paged s | × (range) | hit rate | log-probabilities apart")
    for task in (requests, chat, samples):
        taken: dict[str, list[float]] = {"full": [], "paged": []}
        values: dict[str, list[float]] = {}
        rate = 0.0
        for turn in range(arguments.rounds + 1):
            for kind, own in settings.items():
                engine = Engine(decoder, tokenizer)
                begin = time.perf_counter()
                values[kind] = task(engine, own)
                if turn:
                    taken[kind].append(time.perf_counter() - begin)
                rate = engine.cache_stats.hit_rate
        ratios = [a / b for a, b in zip(taken["full"], taken["paged"], strict=True)]
        middle, low, high = spread(ratios)
        apart = max(abs(a - b) for a, b in zip(values["full"], values["paged"], strict=True))
        medians = [statistics.median(each) for each in taken.values()]
        print(
            f"{task.__name__} | {medians[0]:.2f} | {medians[1]:.2f} | {middle:.2f} "
            f"({low:.2f}–{high:.2f}) | {rate:.1%} | {apart:.1e}",
            flush=True,
        )


def quality(arguments: argparse.Namespace) -> None:
    """Print bytes per token and perplexity of a run for each cache."""
    loaded = load_model(arguments.run)
    whole = "\n".join(document.text for document in shakespeare())
    text = whole[-arguments.characters :]
    tokens = loaded.tokenizer.encode(text)
    exact = None
    print(f"cache | bytes/token | perplexity | change ({len(tokens):,} tokens)")
    for name, cache in chosen(arguments.caches).items():
        score = cached_logprobs(loaded.decoder, [tokens], sampling(cache).cache)
        perplexity = float(-score.logprobs[0].double().mean()).__rpow__(2.718281828459045)
        exact = exact or perplexity
        change = perplexity / exact - 1
        print(
            f"{name} | {score.bytes_per_token:,.0f} | {perplexity:.4f} | {change:+.3%}", flush=True
        )


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory", "passkey", "prefixes", "quality"])
    parser.add_argument("run", nargs="?", default="latest")
    parser.add_argument("--caches", default="", help="words of the names of those to measure")
    parser.add_argument("--contexts", default="256,4096")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--tokens", default="2000,10000,20000")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--length", type=int, default=800, help="tokens of the text")
    parser.add_argument("--keys", type=int, default=2)
    parser.add_argument("--characters", type=int, default=20000)
    arguments = parser.parse_args(given)
    globals()[arguments.what](arguments)


if __name__ == "__main__":
    main()
