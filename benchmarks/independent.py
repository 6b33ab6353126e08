"""How many lines `prosodic` reads as iambic pentameters: a judge that shares nothing with ours.

Run, in an environment of its own (`pip install prosodic`, and espeak-ng for words that it does not
know), on lines as benchmarks/constrained.py --out writes: python benchmarks/independent.py FILE...

A line counts if its best parse alternates weak and strong, with an eleventh weak syllable or not,
with the first foot turned round or not. Sentences are not cut, which needs no data of nltk's.
"""

import argparse
from pathlib import Path

GOOD = {"-+-+-+-+-+", "-+-+-+-+-+-", "+--+-+-+-+", "+--+-+-+-+-"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=450, help="lines of each file, evenly spread")
    asked = parser.parse_args()
    import nltk  # type: ignore[reportMissingImports]
    import prosodic  # type: ignore[reportMissingImports]

    nltk.sent_tokenize = lambda text, *_, **__: [text]
    for file in asked.files:
        lines = [line for line in file.read_text("utf-8").split("\n") if line.strip()]
        lines = lines[:: max(1, len(lines) // asked.most)][: asked.most]
        good = 0
        for line in lines:
            try:
                parse = prosodic.Text(line).lines[0].best_parse
            except ValueError:  # a word without a vowel
                continue
            good += parse is not None and parse.meter_str in GOOD
        print(f"{file.name}: {good / len(lines):.1%} of {len(lines)} lines")


if __name__ == "__main__":
    main()
