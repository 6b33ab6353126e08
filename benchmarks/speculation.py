"""Speculation: accepted tokens and speed against none, on held-out prose, drama and code.

    python benchmarks/speculation.py RUN --prose FILE --drama FILE --code FILE [--ways lookup mtp]
        [--rounds 5] [--prompts 3] [--tokens 128] [--always]

RUN is a run or a .gguf file. Each round writes all texts with each way in turn. Printed for each
way: tokens per call of the decoder, the speed against `none` (median and range of the rounds), and
how many texts came out the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from coterie.checkpoint import load_model
from coterie.exchange.gguf import import_file
from coterie.generate import Engine, SamplingSettings
from coterie.generate.speculation import Controller


def engine_of(run: str) -> Engine:
    """Return an engine with a run's model, or a file's."""
    if not run.endswith(".gguf"):
        loaded = load_model(run)
        return Engine(loaded.decoder, loaded.tokenizer)
    found = import_file(run)
    assert found.tokenizer is not None
    return Engine(found.decoder, found.tokenizer)


def prompts_of(engine: Engine, file: Path, count: int, before: int) -> list[str]:
    """Return pieces of a text at equal distances."""
    text = file.read_text(encoding="utf-8")
    tokens = engine.tokenizer.encode(text[: 4000 * count])
    step = len(tokens) // count
    return [engine.tokenizer.decode(tokens[i * step : i * step + before]) for i in range(count)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    for kind in ("prose", "drama", "code"):
        parser.add_argument(f"--{kind}", type=Path)
    parser.add_argument("--ways", nargs="+", default=["lookup", "mtp"])
    for name, default in (("rounds", 5), ("prompts", 3), ("tokens", 128), ("before", 96)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--always", action="store_true", help="guess whether or not it pays")
    parser.add_argument("--guess", type=int, default=1, help="tokens of one guess of mtp")
    given = parser.parse_args()
    engine = engine_of(given.run)
    if given.always:
        Controller.wants = property(lambda pacing: True)  # type: ignore[method-assign]
        Controller.note = lambda *given, **named: None  # type: ignore[method-assign]
    more = {"mtp": {"tokens": given.guess}}
    settings = {
        way: SamplingSettings.model_validate(
            {
                "speculation": {"kind": way, **more.get(way, {})},
                "temperature": given.temperature,
                "compute": given.compute,
            }
            | {"max_tokens": given.tokens, "min_tokens": given.tokens}
        )
        for way in ("none", *given.ways)
    }
    for kind in ("prose", "drama", "code"):
        if (file := getattr(given, kind)) is None:
            continue
        prompts = prompts_of(engine, file, given.prompts, given.before)
        seconds: dict[str, list[float]] = {way: [] for way in settings}
        tokens: dict[str, list[tuple[int, ...]]] = {}
        drafted = dict.fromkeys(settings, 0)
        for turn in range(given.rounds + 1):  # the first one warms up
            for way, sampling in settings.items():
                began = time.perf_counter()
                made = [engine.generate(prompt, sampling) for prompt in prompts]
                took = time.perf_counter() - began
                if turn:
                    seconds[way].append(took)
                tokens[way] = [each.tokens for each in made]
                drafted[way] = sum(each.drafted for each in made)
        number = sum(map(len, tokens["none"]))
        rate = number / statistics.median(seconds["none"])
        print(f"{kind}: none {rate:.0f} tokens/s, prompts included")
        for way in given.ways:
            pairs = zip(seconds["none"], seconds[way], strict=True)
            ratios = [none / other for none, other in pairs]
            same = sum(a == b for a, b in zip(tokens["none"], tokens[way], strict=True))
            print(
                f"  {way}: {number / (number - drafted[way]):.2f} tokens/call, "
                f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}–{max(ratios):.2f}), "
                f"{same} of {len(prompts)} texts equal"
            )


if __name__ == "__main__":
    main()
