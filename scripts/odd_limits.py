"""Thousands of odd wishes of what a text may be: each gives a text or is refused in words.

    python scripts/odd_limits.py --count 3000 --seed 1

Constraints, forms, prompts and sampling are drawn from a table of what is odd, alone and together,
for small untrained models over characters and bytes. A wish must give a text that ends, or fail
with an error for people (`CoterieError`); nothing may raise otherwise, or take over `--limit`
seconds. Prints what came of them and exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import warnings
from collections import Counter
from typing import Any

import torch

from coterie.api.given import layer_of
from coterie.foundation.errors import CoterieError
from coterie.foundation.layers import load_settings
from coterie.generate import Engine, SamplingSettings
from coterie.language.drama.tags import DRAMA_TAGS
from coterie.language.verse.metres import metres
from coterie.language.verse.schemes import forms
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer

# ruff: noqa: E501 - tables of what is odd
TEXT = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?'-\n<>/{}\"0123456789é"
ODD = ["", " ", "\n", "a", "é", "本", "\x00", "\ud7ff", "<", "<SPEAKER>", "</ACT>", "Orange", "x" * 3000,
       "'", "O'er", "--", "\u202e", "1/2", "<|endoftext|>", "[", "(", "\\", "a{99999}"]  # fmt: skip
PROMPTS = [
    "", "\n", "\n\n\n", " ", "To be", "Shall I compare thee to a summer's day?\n", "The month\n",
    "I see an orange\n", "xq zzgh\n", "To be, or not to be, that is the question of\n",
    "word " * 4000, "line of words\n" * 900, "<PLAY>A</PLAY>\n", "<SPEAKER>ROMEO</SPEAKER>\n", "</PLAY>",
    "<ACT>I</ACT>\n<ACT>I</ACT>\n", "<STAGE>Enter", "本語\n", "é\n", "\x00\x01\n", "?!\n", "- - -\n", "a\tb\n",
    "The silver\nThe purple\n", "love\nprove\nlove\n", "I", "Thou art more lovely and more temper", "{", "12:00\n",
]  # fmt: skip
NUMBERS: list[Any] = [
    -1,
    0,
    1,
    2,
    3,
    14,
    99,
    10**9,
    0.5,
    -0.5,
    "nan",
    "inf",
    "two",
    None,
    True,
    [1, 2],
    [2, 1],
]
LETTERS = [
    "A",
    "AA",
    "ABAB",
    "AABB",
    "ABABCC",
    "ABCDEFGHIJKLMN",
    "abab",
    "A1",
    "",
    "ÄÄ",
    "A B",
    "AAAAAAAAAAAA",
]
SAMPLING: list[dict[str, Any]] = [
    {}, {"temperature": 0}, {"temperature": 100}, {"top_k": 1}, {"top_p": 0.01}, {"min_p": 1},
    {"typical_p": 0.1}, {"min_tokens": 20}, {"stop": ["e", "\n"]}, {"beams": {"width": 2}},
    {"best_of": 3}, {"speculation": "lookup"}, {"cache": "none"}, {"report": True},
    {"cache": {"kind": "window", "size": 3}}, {"max_tokens": 1}, {"repetition_penalty": 100},
    {"logit_bias": {"e": -100, "a": 100}}, {"cache": {"kind": "pruned", "size": 8}},
]  # fmt: skip
WORDS: list[list[str]] = [[], ["xq"], ["", "1", "本", "o' er"]]


def some(drawn: random.Random, values: list[Any]) -> Any:
    """Return one of the values; of numbers mostly one that may be, so that others are reached."""
    usual = values is NUMBERS and drawn.random() < 0.8
    return drawn.choice([1, 2, 3]) if usual else drawn.choice(values)


def verse(drawn: random.Random) -> dict[str, Any]:
    """Return wishes of verse, in short or in full."""
    pick = drawn.choice
    names: dict[str, list[Any]] = {
        "form": [*forms(), "sonet", "", "ABAB", None], "metre": [*metres(), "iambs", "", None],
        "rhyme": LETTERS, "lines": NUMBERS, "budget": NUMBERS, "feminine": NUMBERS, "seed": NUMBERS,
        "words": WORDS, "look_ahead": NUMBERS,
    }  # fmt: skip
    said = {
        name: some(drawn, names[name]) for name in drawn.sample(list(names), drawn.randint(1, 3))
    }
    said.setdefault(pick(["form", "metre", "rhyme"]), pick(["sonnet", "ballad", "AA", "couplets"]))
    short = ("form", "metre", "rhyme")
    if drawn.random() < 0.5:
        return {"verse": said}
    rest = {name: value for name, value in said.items() if name not in short}
    return {name: said[name] for name in short if name in said} | ({"verse": rest} if rest else {})


def structure(drawn: random.Random) -> dict[str, Any]:
    """Return wishes of plays."""
    names: dict[str, list[Any]] = {
        "acts": NUMBERS, "scenes": NUMBERS, "speeches": NUMBERS, "lines": NUMBERS, "width": NUMBERS,
        "cast": [[], [""], ["A"], ["A", "A"], ODD, ["<A>"], "A", [" A "], ["本"], None], "form": ["drama", "poem"],
    }  # fmt: skip
    chosen = drawn.sample(list(names), drawn.randint(0, 3))
    return {"structure": {name: some(drawn, names[name]) for name in chosen} or "drama"}


def general(drawn: random.Random) -> dict[str, Any]:
    """Return wishes of other grammars."""
    pick = drawn.choice
    return pick([
        {"choices": drawn.sample(ODD, drawn.randint(0, 4))},
        {"regex": "".join(drawn.choices([*"ab[](){}|?*+.^$\\-,1", "a{2,3}", "[^a]"], k=drawn.randint(0, 8)))},
        {"grammar": {"text": f"start: {pick(ODD)!r} | /{pick(ODD)}/ start"}},
        {"grammar": pick(["none.lark", "/", "", "."])},
        {"json_schema": {"schema": pick([{}, {"type": "object"}, {"type": "x"}, {"enum": []}, {"const": None}, False,
                                         {"$ref": "#"}, {"type": "string", "minLength": 5, "maxLength": 2}])}},
        {"constraints": [{"kind": "forbid", "texts": pick([ODD, list(TEXT), [], ["e"], "e", [""]])}]},
        {"constraints": [{"kind": pick(["", "none", "verse", "no.such:Thing", "os:path"])}]},
    ])  # fmt: skip


def wish(drawn: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a prompt and what is asked of the text."""
    asked: dict[str, Any] = {}
    for make in drawn.sample([verse, verse, structure, general], drawn.choice([1, 1, 1, 2, 3])):
        asked |= make(drawn)
    asked |= drawn.choice(SAMPLING)
    asked.setdefault("max_tokens", drawn.choice([5, 25, 60]))
    return drawn.choice(PROMPTS), asked


def engines() -> list[Engine]:
    made = []
    for name in ("characters", "bytes"):
        tokenizer = parse_tokenizer(name, special_tokens=DRAMA_TAGS).build([TEXT])
        model = {"layers": 1, "width": 8, "context": 128, "vocab_size": tokenizer.vocab_size,
                 "attention": {"kind": "grouped", "heads": 1}}  # fmt: skip
        torch.manual_seed(0)
        made.append(Engine(DecoderSettings.model_validate(model).build(), tokenizer))
    return made


def tried(engine: Engine, prompt: str, asked: dict[str, Any]) -> str:
    """Return what came of a wish; anything but an error for people is raised."""
    try:
        sampling = load_settings(SamplingSettings, [layer_of(asked)]).settings
    except CoterieError as error:
        return f"refused at the door{'' if str(error).strip() else ' without a word'}"
    try:
        made = engine.generate(prompt, sampling)
    except CoterieError as error:
        return f"refused: {str(error).split(',')[0].split('“')[0].split(':')[0][:60]}"
    assert made.finish_reason in ("end", "length", "stop")
    return f"written, {made.finish_reason}"


def too_long(signal: int, frame: object) -> None:
    raise TimeoutError


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=30, help="seconds that a wish may take")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, too_long)
    came: Counter[str] = Counter()
    wrong, slowest, all_engines = [], 0.0, engines()
    for number in range(given.count):
        drawn = random.Random(f"{given.seed} {number}")
        prompt, asked = wish(drawn)
        begin = time.perf_counter()
        signal.alarm(given.limit)
        try:
            came[tried(all_engines[number % 2], prompt, asked)] += 1
        except BaseException as error:  # Rust panics are no exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append((number, f"{type(error).__name__}: {error}"[:200], prompt[:50], asked))
            print(*wrong[-1], flush=True)
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - begin)
    for name, count in came.most_common():
        print(f"{count:6,}  {name}")
    print(f"{given.count:,} wishes, {len(wrong):,} otherwise; the slowest took {slowest:.1f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
