"""What constraints on verse cost and reach: lines that scan and rhyme, nats a token, time a token.

Run: python benchmarks/constrained.py RUN --out FOLDER     (texts for benchmarks/judge.py)
     python benchmarks/constrained.py --step bpe:8192      (milliseconds a step of the mask alone)

Prompts are lines of the run's own held-out part, each continued freely and by constraint to a
stanza, with one sampling and seed. Nats are the model's own, before temperature and constraints, so
that they tell how much likelier it finds what it writes freely; an end of the text is left out.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import coterie
from coterie.api.model import Model
from coterie.data.cache import store_for
from coterie.data.corpus import shakespeare
from coterie.data.merged import held_out as parts_held_out
from coterie.foundation.layers import Layer
from coterie.foundation.runs import cache_root
from coterie.generate import Request
from coterie.generate.constraints import Verse
from coterie.language.verse.rhyme import last_word, rhyme
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import pairs_of
from coterie.tokenizer.settings import parse_tokenizer


def held_out(model: Model, count: int, offset: int = 0) -> list[str]:
    """Return whole lines of the part that a run never trained on, spread evenly from one on."""
    store = store_for(model.settings.data, model.settings.tokenizer, cache_root())
    part = next(iter(parts_held_out(store).values()))
    text = model.tokenizer.decode(np.asarray(part.tokens("valid")[:]).tolist())
    lines = [each for each in text.split("\n")[1:-1] if each.strip() and "<" not in each]
    return lines[offset :: max(1, len(lines) // count)][:count]


def quatrains(count: int, skip: int = 77) -> list[list[str]]:
    """Return quatrains of the sonnets from number `skip` + 1 on, spread evenly."""
    sonnets = next(each for each in shakespeare() if each.name == "sonnets").text
    poems = [part.split("\n")[1:13] for part in sonnets.split("<PART>")[1 + skip :]]
    found = [poem[at : at + 4] for poem in poems for at in (0, 4, 8)]
    return found[:: max(1, len(found) // count)][:count]


def stanza(text: str, lines: int) -> list[str]:
    """Return the first whole lines of words of a text."""
    words = [line for line in text.split("\n")[:-1] if line.strip() and "<" not in line]
    return words[:lines]


def share(found: Iterable[bool]) -> float:
    """Return how many are true, of all; of none 0."""
    return statistics.mean([*found] or [False])


def judge(stanzas: list[list[str]], letters: str) -> str:
    """Return the shares of lines that scan, end on a weak syllable, and pairs that rhyme."""
    scans = [scan(line) for lines in stanzas for line in lines[1:]]
    if not scans:
        return "no whole line"
    ends = [[last_word(line) for line in lines] for lines in stanzas if len(lines) == len(letters)]
    kinds = [rhyme(each[a], each[b]) for each in ends for a, b in pairs_of(letters)]
    first = [each[at] for each in ends for at in range(1, len(each))]
    words = [word.text for each in scans for word in each.words]
    short = [len(option.signature) == 1 for each in scans for option in each.said]
    pairs = list(itertools.pairwise(words))
    return (
        f"{len(scans)} lines, {statistics.mean(each.metrical for each in scans):.1%} scan, "
        f"{statistics.mean(len(each.pattern) == 11 for each in scans):.0%} feminine, "
        f"{statistics.mean(short or [False]):.0%} monosyllables, "
        f"distinct pairs {len(set(pairs)) / max(1, len(pairs)):.2f}; {len(kinds)} pairs, "
        f"{share(each.rhymes for each in kinds):.1%} rhyme, "
        f"{share(each.kind == 'perfect' for each in kinds):.1%} perfectly; "
        f"{len(set(first))} different words at {len(first)} ends"
    )


def write(
    model: Model, prompts: list[str], limits: dict[str, object]
) -> tuple[list[str], list[float]]:
    """Return what the model writes after each prompt, and the nats of all its tokens."""
    requests = [
        Request(prompt, model.sampling(Layer("benchmark", {**limits, "seed": seed})))
        for seed, prompt in enumerate(prompts)
    ]
    texts, nats = dict.fromkeys(map(id, requests), ""), []
    for request, piece in model.run(requests):
        texts[id(request)] += piece.text
        if piece.token not in model.tokenizer.ends:
            nats.append(-piece.logprob)
    return list(texts.values()), nats


def write_lines(folder: Path | None, name: str, stanzas: list[list[str]]) -> None:
    """Write stanzas without their first lines, if a folder was asked for."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(line for each in stanzas for line in each[1:])
        (folder / f"{name}.txt").write_text(lines + "\n", "utf-8")


def steps(vocabulary: str, poems: int) -> None:
    """Print what the mask of a sonnet costs a step, first and when its states are known."""
    texts = [each.text for each in shakespeare()]
    tokenizer = parse_tokenizer(vocabulary).build(texts)
    begin = time.perf_counter()
    Verse(form="sonnet").build(tokenizer, [])
    took = time.perf_counter() - begin
    print(f"{vocabulary}: {tokenizer.vocab_size:,} tokens, ready in {took:.1f} s")
    generator = torch.Generator().manual_seed(0)
    common = 3 * torch.rand(tokenizer.vocab_size, generator=generator)
    for poem in range(poems):
        constraint, times = Verse(form="sonnet", seed=poem).build(tokenizer, []), []
        while True:
            logits = common + torch.randn(tokenizer.vocab_size, generator=generator)
            begin = time.perf_counter()
            token = int(constraint.mask(logits).argmax())
            if token in tokenizer.ends:
                break
            constraint.accept(token)
            times.append(1e3 * (time.perf_counter() - begin))
        print(f"  sonnet {poem + 1}: {len(times)} steps, mean {statistics.mean(times):.3f} ms, "
              f"median {statistics.median(times):.3f}, 9 in 10 under "
              f"{statistics.quantiles(times, n=10)[-1]:.3f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--step", help="a vocabulary, such as gpt2: time of the mask alone")
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--offset", type=int, default=0, help="lines before the first prompt")
    parser.add_argument("--scheme", default="ABAB")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--budget", type=float, help="nats a line; default as sonnets")
    parser.add_argument("--look-ahead", type=float, nargs="+", default=[1.0])
    parser.add_argument("--out", type=Path, help="where what was written goes, line by line")
    asked = parser.parse_args()
    if asked.step:
        steps(asked.step, 12)
        return
    model = coterie.load(asked.run)
    prompts = [f"{line}\n" for line in held_out(model, asked.prompts, asked.offset)]
    verse = {"rhyme": asked.scheme, "lines": len(asked.scheme), "budget": asked.budget}
    ways: dict[str, dict[str, object]] = {"freely": {"max_tokens": 45 * (len(asked.scheme) - 1)}}
    for each in asked.look_ahead:
        limits = {"max_tokens": 400, "verse": verse | {"look_ahead": each}}
        ways[f"constrained, look-ahead {each:g}"] = limits
    real = quatrains(asked.prompts)
    print(f"sonnets 78-154: {judge(real, 'ABAB')}")
    write_lines(asked.out, "sonnets", real)
    free = 0.0
    for name, limits in ways.items():
        begin = time.perf_counter()
        texts, nats = write(model, prompts, {"temperature": asked.temperature, **limits})
        took = 1e3 * (time.perf_counter() - begin) / len(nats)
        made = [stanza(prompt + text, len(asked.scheme))
                for prompt, text in zip(prompts, texts, strict=True)]  # fmt: skip
        free = free or statistics.mean(nats)
        print(f"{name}: {judge(made, asked.scheme)}")
        print(f"  {statistics.mean(nats):.3f} nats a token ({statistics.mean(nats) - free:+.3f}); "
              f"{took:.2f} ms a token", flush=True)  # fmt: skip
        write_lines(asked.out, name, made)


if __name__ == "__main__":
    main()
