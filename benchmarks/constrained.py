"""What constraints on verse cost and reach: lines that scan and rhyme, nats a token, time a token.

Run: python benchmarks/constrained.py RUN --prompts 20    (prosodic, if installed, judges as well)

Prompts are first lines of sonnets, by turns continued freely and by constraint to a stanza, with
one sampling and seed. Nats are the model's own, before temperature and constraints, so that they
tell how much likelier it finds what it writes freely.
"""

import argparse
import itertools
import statistics
import time

import coterie
from coterie.api.model import Model
from coterie.data.corpus import shakespeare
from coterie.generate import Generation
from coterie.language.verse.rhyme import last_word, rhyme
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import pairs_of


def first_lines(count: int, skip: int = 77) -> list[str]:
    """Return first lines of sonnets, from number `skip` + 1 on."""
    sonnets = next(each for each in shakespeare() if each.name == "sonnets").text
    return [part.split("\n")[1] for part in sonnets.split("<PART>")[1 + skip :]][:count]


def stanza(text: str, lines: int) -> list[str]:
    """Return the first whole lines of words of a text."""
    words = [line for line in text.split("\n")[:-1] if line.strip() and "<" not in line]
    return words[:lines]


def judge(stanzas: list[list[str]], letters: str) -> str:
    """Return the shares of lines that scan, end on a weak syllable, and pairs that rhyme."""
    scans = [scan(line) for lines in stanzas for line in lines]
    if not scans:
        return "no whole line"
    ends = [[last_word(line) for line in lines] for lines in stanzas if len(lines) == len(letters)]
    kinds = [rhyme(each[a], each[b]).kind for each in ends for a, b in pairs_of(letters)]
    words = [word.text for each in scans for word in each.words]
    short = [len(option.signature) == 1 for each in scans for option in each.said]
    pairs = list(itertools.pairwise(words))
    return (
        f"{len(scans)} lines, {statistics.mean(each.metrical for each in scans):.1%} scan, "
        f"{statistics.mean(len(each.pattern) == 11 for each in scans):.0%} feminine, "
        f"{statistics.mean(short or [False]):.0%} monosyllables, "
        f"distinct pairs {len(set(pairs)) / max(1, len(pairs)):.2f}; {len(kinds)} pairs, "
        f"{statistics.mean(kind == 'perfect' for kind in kinds) if kinds else 0:.1%} rhyme"
    )


def independent(stanzas: list[list[str]]) -> str:
    """Return the share of lines that `prosodic` reads as pentameters, the first foot aside."""
    try:
        import prosodic
    except ImportError:
        return "prosodic is not installed"
    good = total = 0
    for line in (line for lines in stanzas for line in lines):
        parse = prosodic.Text(line).lines[0].best_parse
        meter = "".join(parse.meter_str).replace("+", "s").replace("-", "w") if parse else ""
        good += meter in ("wswswswsws", "wswswswswsw", "swwswswsws", "swwswswswsw")
        total += 1
    return f"{good / max(1, total):.1%} of {total} lines by prosodic"


def write(model: Model, prompt: str, seed: int, **limits: object) -> tuple[Generation, float]:
    """Return what the model writes, and the milliseconds a token."""
    begin = time.perf_counter()
    made = model.generate(prompt, seed=seed, max_tokens=300, **limits)
    return made, 1e3 * (time.perf_counter() - begin) / max(1, len(made.tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--scheme", default="ABAB")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument(
        "--budget", type=float, default=None, help="nats a line; default as sonnets"
    )
    asked = parser.parse_args()
    model = coterie.load(asked.run)
    verse = {"rhyme": asked.scheme, "lines": len(asked.scheme), "budget": asked.budget}
    ways: dict[str, dict[str, object]] = {"freely": {}, "constrained": {"verse": verse}}
    texts: dict[str, list[list[str]]] = {name: [] for name in ways}
    nats: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for seed, line in enumerate(first_lines(asked.prompts)):
        for name, limits in ways.items():
            prompt = f"{line}\n"
            made, took = write(model, prompt, seed, temperature=asked.temperature, **limits)
            texts[name].append(stanza(prompt + made.text, len(asked.scheme)))
            nats[name] += [-each for each in made.logprobs]
            times[name].append(took)
    for name in ways:
        rest = [lines[1:] for lines in texts[name]]
        print(f"{name}: {judge(texts[name], asked.scheme)}")
        print(f"  {independent(rest)}; {statistics.mean(nats[name]):.3f} nats a token; "
              f"{statistics.median(times[name]):.2f} ms a token")  # fmt: skip
    print(
        f"dearer by {statistics.mean(nats['constrained']) - statistics.mean(nats['freely']):+.3f}"
    )


if __name__ == "__main__":
    main()
