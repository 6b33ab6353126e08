"""Figures of a text of verse: metre, rhyme, words, repetition, and what was copied.

Each figure is a share or a count of the text itself, to be set beside those of a text by people.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from coterie.language.pairs import pairs_of as table_of
from coterie.language.verse.copying import longest_run
from coterie.language.verse.lines import words
from coterie.language.verse.metres import Metre, metre_of
from coterie.language.verse.phones import syllables
from coterie.language.verse.readings import readings
from coterie.language.verse.rhyme import rhyme
from coterie.language.verse.scansion import Scan, scan
from coterie.language.verse.schemes import Form, form_of, last_word, letters_of, pairs_of

_HEADING = re.compile(r"\s*<(PLAY|POEM|ACT|SCENE|PART|SPEAKER)>[^<>]*</\1>\s*")
_TAG = re.compile(r"<STAGE>[^<>]*</STAGE> ?|</?[A-Z]+>")
_OLD = re.compile(r"(?:th(?:ou|ee|y|ine|yself)|.{2,}(?:eth|'st|'d)|'t\w+|\w+'er)$")


class Stanza(NamedTuple):
    """Lines that stand together: where the first one is in the text, from 1, and their words."""

    first: int
    lines: tuple[str, ...]


def stanzas(text: str) -> list[Stanza]:
    """Return the stanzas of plain or tagged text: parted by empty lines, headings and speakers."""
    found: list[Stanza] = []
    lines: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        bare = "" if _HEADING.fullmatch(line) else _TAG.sub("", line).strip()
        if words(bare):
            lines.append(bare)
        elif lines:
            found.append(Stanza(number - len(lines), tuple(lines)))
            lines = []
    return found


def scan_text(text: str, metre: str | Metre = "iambic-pentameter") -> list[tuple[int, str, Scan]]:
    """Return every line of words with its number from 1 and how it is said in a metre.

    Raises:
        UserError: there is no such metre.
    """
    named = metre_of(metre)
    return [
        (stanza.first + index, line, scan(line, named, index))
        for stanza in stanzas(text)
        for index, line in enumerate(stanza.lines)
    ]


def score(
    text: str,
    metre: str | Metre = "iambic-pentameter",
    form: str | Form | None = None,
    training: str | Iterable[str] | None = None,
) -> dict[str, dict[str, object]]:
    """Return what can be measured about a text, by area.

    Args:
        text: plain or tagged.
        metre: that lines are held against.
        form: that stanzas are held against; without one, rhymes are looked for.
        training: a text that may have been copied from, or several.

    Raises:
        UserError: there is no such metre or form.
    """
    scans = scan_text(text, metre)
    groups = [stanza.lines for stanza in stanzas(text)]
    tokens = [word.key.strip("'") for _, _, each in scans for word in each.words]
    found: dict[str, dict[str, object]] = {
        "metre": {"name": metre_of(metre).name, **_metre([each for _, _, each in scans])},
        "rhyme": _rhyme(groups, form_of(form) if isinstance(form, str) else form),
        "words": _words(tokens),
    }
    if training is not None:
        found["copying"] = _copying(tokens, [training] if isinstance(training, str) else training)
    return found


def _share(count: int, of: int) -> float | None:
    return round(count / of, 4) if of else None


def _metre(scans: Sequence[Scan]) -> dict[str, object]:
    fits = [each for each in scans if each.said]
    reasons = [reason.name for each in fits for reason in each.reasons]
    costs = sorted(each.cost for each in fits)
    return {
        "lines": len(scans),
        "metrical": _share(sum(each.metrical for each in scans), len(scans)),
        "median_cost": round(costs[len(costs) // 2], 2) if costs else None,
        "feminine_endings": _share(reasons.count("feminine ending"), len(fits)),
        "inverted_feet": _share(sum(name.startswith("inverted") for name in reasons), len(fits)),
    }


def _rhyme(groups: Sequence[Sequence[str]], form: Form | None) -> dict[str, object]:
    pairs, schemes = [], []
    for lines in groups:
        size = len(form.letters) if form else len(lines)
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            letters = form.letters[: len(part)] if form else letters_of(part)
            schemes.append("".join(letters))
            ends = [last_word(line) for line in part]
            pairs += [(ends[first], ends[second]) for first, second in pairs_of(letters)]
    kinds = Counter(rhyme(*pair).kind for pair in pairs)
    return {
        "form": form.name if form else None,
        "schemes": schemes if not form else None,
        "pairs": len(pairs),
        "rhyming": _share(kinds["perfect"] + kinds["slant"], len(pairs)),
        **{kind: kinds[kind] for kind in ("perfect", "slant", "eye", "identical", "none")},
    }


def _words(tokens: Sequence[str]) -> dict[str, object]:
    old = table_of("archaic")
    pairs = list(pairwise(tokens))
    triples = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    archaic = sum(token in old or _OLD.match(token) is not None for token in tokens)
    single = sum(syllables(readings(token)[0].phones) == 1 for token in tokens)
    repeated = sum(first == second for first, second in pairs)
    return {
        "words": len(tokens),
        "archaic": _share(archaic, len(tokens)),
        "monosyllables": _share(single, len(tokens)),
        "distinct_1": _share(len(set(tokens)), len(tokens)),
        "distinct_2": _share(len(set(pairs)), len(pairs)),
        "distinct_3": _share(len(set(triples)), len(triples)),
        "repeated_at_once": _share(repeated, len(pairs)),
    }


def _copying(tokens: Sequence[str], training: Iterable[str]) -> dict[str, object]:
    run = longest_run(tokens, training)
    return {"longest_run": len(run), "words": " ".join(run)}
