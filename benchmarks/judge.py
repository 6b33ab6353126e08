"""Lines judged by `prosodic`, which had no part in writing them, beside lines of real sonnets.

Run: python benchmarks/judge.py latest rhyme=ABAB verse.lines=4 --prompts 50
     python benchmarks/judge.py poems.txt

`prosodic` serves tests alone: pip install prosodic==3.10.0 (800 MB; best in an environment of its
own), and apt-get install espeak-ng for words that it does not know. It asks nltk for data that it
would download, to cut sentences; a line is one sentence here. A line counts if its best parse is an
iambic pentameter, perhaps with the first foot turned round and a weak syllable at its end.
Prompts are lines of the run's own held-out part, and are not judged.
"""

import argparse
import math
from pathlib import Path

import nltk  # pyright: ignore[reportMissingImports] - comes with prosodic
from constrained import held_out

import coterie
from coterie.data.corpus import shakespeare
from coterie.foundation.layers import overrides_layer
from coterie.generate import Request
from coterie.language.verse.score import stanzas

PENTAMETERS = ("wswswswsws", "wswswswswsw", "swwswswsws", "swwswswswsw")


def one_sentence(text: str) -> list[str]:
    return [text]


nltk.sent_tokenize = one_sentence  # before prosodic looks for it

import prosodic  # noqa: E402 # pyright: ignore[reportMissingImports] - of tests alone


def accepts(line: str) -> bool:
    """Whether prosodic's best parse of a line is a pentameter."""
    try:
        parse = prosodic.Text(line).lines[0].best_parse
    except (LookupError, ValueError):  # of tokens without a vowel
        return False
    marks = "".join(parse.meter_str) if parse else ""
    return marks.replace("+", "s").replace("-", "w") in PENTAMETERS


def share(lines: list[str]) -> str:
    """Return the share that is accepted, with Wilson's interval of 95 %."""
    if not lines:
        return "no line"
    good, count, z = sum(map(accepts, lines)), len(lines), 1.96
    middle = (good + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(good * (count - good) / count + z * z / 4)
    return f"{good / count:.1%} of {count} lines ({middle - half:.1%}–{middle + half:.1%})"


def lines_of(text: str) -> list[str]:
    return [line for each in stanzas(text) for line in each.lines]


def real(count: int) -> list[str]:
    """Return so many lines of sonnets 78–154, spread evenly."""
    sonnets = next(each for each in shakespeare() if each.name == "sonnets").text
    lines = [line for part in sonnets.split("<PART>")[78:] for line in lines_of(f"<PART>{part}")]
    return lines[:: max(1, len(lines) // count)][:count]


def written(run: str, words: list[str], prompts: int, offset: int) -> list[str]:
    """Return whole lines that a run writes after held-out ones."""
    model = coterie.load(run)
    layers = [overrides_layer(words)] if words else []
    asked = [
        Request(f"{line}\n", model.sampling(*layers), seed)
        for seed, line in enumerate(held_out(model, prompts, offset), offset)
    ]
    texts = dict.fromkeys(map(id, asked), "")
    for request, piece in model.run(asked):
        if piece.error is not None:
            raise piece.error
        texts[id(request)] += piece.text
    return [line for text in texts.values() for line in lines_of(text.rpartition("\n")[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", help="a run, or a file of verse")
    parser.add_argument("words", nargs="*", help="settings of generate, as key=value")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--offset", type=int, default=0, help="lines before the first prompt")
    parser.add_argument("--real", type=int, default=300, help="lines of sonnets beside them")
    parser.add_argument("--out", type=Path, help="where to keep the lines that were judged")
    asked = parser.parse_args()
    file = Path(asked.target)
    if file.is_file():
        lines = lines_of(file.read_text(encoding="utf-8"))
    else:
        lines = written(asked.target, asked.words, asked.prompts, asked.offset)
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{asked.target} {' '.join(asked.words)}: {share(lines)}", flush=True)
    print(f"sonnets 78–154: {share(real(asked.real))}")


if __name__ == "__main__":
    main()
