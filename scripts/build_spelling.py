"""Make the table of spellings from the First Folio beside a modern edition, word by word.

    python scripts/build_spelling.py [--archives DIR]     writes coterie/language/spelling.txt

Both editions of 35 plays are in the package that the poems of the corpus come from. Their words are
aligned where a few in a row, spelled alike but for what printers varied, occur once in either.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import difflib
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from build_corpus import POEMS_SOURCE, checked, download

from coterie.foundation.files import write_bytes_atomic
from coterie.language import spelling

_LEAST = 2  # occurrences
_SURE = 0.75  # share of a form's occurrences that stand for one word
_FOREIGN = 0.05  # a form that is this much of a modern word itself is none of another's
_ALIKE = 0.75
_HEAD = (
    "# A modern word and its spellings in the First Folio, the most frequent first; = is the word\n"
    "# itself. Made by scripts/build_spelling.py.\n"
)
# The files whose two editions are not called alike.
_RENAMED = {
    "all_is_well_that_ends_well": "alls_well_that_ends_well",
    "anthonie_and_cleopatra": "antony_and_cleopatra",
    "comedy_of_errours": "comedy_of_errors",
    "loves_labour_lost": "loves_labours_lost",
    "midsummer_nights_dreame": "midsummer_nights_dream",
    "titus_andronicus": "tragedy_of_titus_andronicus",
    "twelfe-night": "twelfth_night",
}


def main() -> None:
    """Build and write the table."""
    parser = argparse.ArgumentParser(description="Make the table of spellings.")
    parser.add_argument("--archives", type=Path, help="folder with the archive (no download)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.archives or download(Path(temporary), [POEMS_SOURCE])
        plays = list(editions(checked(folder, POEMS_SOURCE)))
    pairs = collections.Counter(pair for old, new in plays for pair in aligned(old, new))
    table = table_of(pairs, collections.Counter(word for _, new in plays for word in new))
    lines = (f"{word} {' '.join(forms)}\n" for word, forms in sorted(table.items()))
    write_bytes_atomic(spelling.TABLE, (_HEAD + "".join(lines)).encode("ascii"))
    known = {form: word for word, forms in table.items() for form in forms if form != "="}
    same = sum(count for (old, new), count in pairs.items() if old == new)
    right = sum(count for (old, new), count in pairs.items() if known.get(old, old) == new)
    total = sum(pairs.values())
    print(f"{len(plays)} plays, {total:,} words aligned; {len(table):,} words in the table")
    print(f"spelled as the modern edition: {same / total:.1%}, with the table {right / total:.1%}")


def editions(archive: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the words of the Folio's edition and of the modern one of each play."""
    with tarfile.open(archive) as files:
        texts = {Path(each.name).name: files.extractfile(each) for each in files}
        words = {
            name.removesuffix(".txt"): spelling.WORD.findall(text.read().decode().lower())
            for name, text in texts.items() if text and name.endswith(("_gut.txt", "_gut_f.txt"))
        }  # fmt: skip
    for name in sorted(words):
        stem = name.removesuffix("_gut_f")
        if stem != name:
            yield words[name], words[f"{_RENAMED.get(stem, stem)}_gut"]


def aligned(old: list[str], new: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the words of two editions that stand at the same place."""
    keys = [_key(word) for word in old], [_key(word) for word in new]
    for at, beside in _places(*keys, (0, len(old)), (0, len(new)), 4):
        yield old[at], new[beside]


def _key(word: str) -> str:
    """Return a word without what printers varied."""
    word = word.replace("'", "").replace("vv", "w").replace("v", "u").replace("j", "i")
    word = re.sub(r"(.)\1", r"\1", word.replace("y", "i").replace("ie", "i"))
    word = re.sub(r"ck$", "k", word)
    word = re.sub(r"e$", "", word) if len(word) > 2 else word
    return re.sub(r"e([sd])$", r"\1", word)


def _places(
    old: list[str], new: list[str], ours: tuple[int, int], theirs: tuple[int, int], n: int
) -> Iterator[tuple[int, int]]:
    """Yield the places that belong together: n-grams that are unique, and what is between them."""
    (at, end), (beside, limit) = ours, theirs
    found = _rising(_once(old, at, end, n), _once(new, beside, limit, n))
    for place, other, length in [*((x, y, n) for x, y in found), (end, limit, 0)]:
        between = place - at
        if 0 < between == other - beside <= 8:
            yield from zip(range(at, place), range(beside, other), strict=True)
        elif n > 1 and between > 0 and other > beside:
            yield from _places(old, new, (at, place), (beside, other), n - 1)
        for step in range(length):
            if place + step >= at and other + step >= beside:
                yield place + step, other + step
        at, beside = max(at, place + length), max(beside, other + length)


def _once(words: list[str], begin: int, end: int, n: int) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], list[int]] = {}
    for at in range(begin, end - n + 1):
        found.setdefault(tuple(words[at : at + n]), []).append(at)
    return {gram: places[0] for gram, places in found.items() if len(places) == 1}


def _rising(ours: dict, theirs: dict) -> list[tuple[int, int]]:
    """Return the longest row of common n-grams that both sides have in the same order."""
    pairs = sorted((at, theirs[gram]) for gram, at in ours.items() if gram in theirs)
    ends: list[int] = []  # the least last place of a row of each length
    last: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect.bisect_left(ends, place)
        ends[length:], last[length:] = (
            [place, *ends[length + 1 :]], [number, *last[length + 1 :]],
        )  # fmt: skip
        before.append(last[length - 1] if length else -1)
    row, number = [], last[-1] if last else -1
    while number >= 0:
        row.append(pairs[number])
        number = before[number]
    return row[::-1]


def table_of(
    pairs: collections.Counter[tuple[str, str]], modern: collections.Counter[str]
) -> dict[str, list[str]]:
    """Return the spellings of each modern word that another spelling surely stands for."""
    of_form: collections.Counter[str] = collections.Counter()
    for (form, _), count in pairs.items():
        of_form[form] += count
    table: dict[str, list[str]] = {}
    for (form, word), count in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])):
        sure = count >= max(_LEAST, _SURE * of_form[form])
        foreign = modern[form] > _FOREIGN * of_form[form]
        short = word.startswith(form) and len(word) > len(form) + 1  # "fal", a speaker
        if form == word:
            table.setdefault(word, []).append("=")
        elif sure and not foreign and not short and len(form) > 1 and _alike(form, word):
            table.setdefault(word, []).append(form)
    return {word: forms for word, forms in table.items() if forms != ["="]}


def _alike(form: str, word: str) -> bool:
    return difflib.SequenceMatcher(None, _key(form), _key(word)).ratio() >= _ALIKE


if __name__ == "__main__":
    main()
