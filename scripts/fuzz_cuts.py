"""Cuts random texts wherever a tokenizer says that a cut changes nothing, and compares the tokens.

Run: python scripts/fuzz_cuts.py --rounds 20000 --seed 1   (a minute)
"""

from __future__ import annotations

import argparse
import random
import sys

from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.special import END_OF_TEXT

NAMES = ("gpt2", "cl100k_base", "o200k_base", "bpe:300", "characters", "bytes")
SPECIALS = ("<| a b|>", "x 1", "b,c")
_FRAGMENTS = [
    *"aZéñſǅʰ中かก한अ𝐀𐐀1٣²Ⅷ½",  # letters and numbers of all classes, some beyond the basic plane
    *"'’`\"-_.,!?/\\|<>(){}[]@#$%^&*+=~:;、。—…·«»€🙂",
    *"\u0301\u093f\u0e31\u200d\u00ad\ufeff\u180e",  # marks, joiners and other things unseen
    *" \t\n\r\x0b\x0c\x1c\x1f\x85\u00a0\u1680\u2003\u2028\u2029\u3000\x00",
    *("  ", "\n\n", "\r\n", " a", " 1", " !", "'s", "'ll", "'S", "'VE", "'ſ", "don't", "123456"),
    *("Hello", "naïve", "ABC", "aB", "the", END_OF_TEXT, *SPECIALS, "<| a", "<|endof"),
]


def tokenizers() -> list[Tokenizer]:
    """Return one tokenizer of every kind that cuts."""
    text = "".join(_FRAGMENTS) * 3
    return [parse_tokenizer(name, SPECIALS).build([text]) for name in NAMES]


def random_text(rng: random.Random) -> str:
    """Return up to a dozen fragments, of few or of many kinds."""
    some = rng.sample(_FRAGMENTS, rng.choice([2, 4, 12]))
    return "".join(rng.choices(some, k=rng.randrange(1, 14)))


def wrong_cut(tokenizer: Tokenizer, text: str) -> int | None:
    """Return a place where the tokenizer would cut and change its tokens, if there is one."""
    whole = tokenizer.encode(text)
    for place in {tokenizer.cut(text, near) for near in range(1, len(text) + 1)} - {None}:
        if tokenizer.encode(text[:place]) + tokenizer.encode(text[place:]) != whole:
            return place
    return None


def main() -> int:
    """Return 1 after showing a text that is cut wrongly, 0 if there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, kinds, cuts = random.Random(options.seed), tokenizers(), 0
    for _ in range(options.rounds):
        text = random_text(rng)
        for name, tokenizer in zip(NAMES, kinds, strict=True):
            place = wrong_cut(tokenizer, text)
            if place is not None:
                print(f"{name} cuts {text!r} at {place}")
                return 1
            cuts += tokenizer.cut(text, len(text)) is not None
    print(f"{options.rounds:,} texts, {cuts:,} of them cut by a tokenizer: no token changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
