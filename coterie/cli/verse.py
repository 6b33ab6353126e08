"""`coterie verse`: scan lines and say why, and measure a text of verse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from coterie.api.data import sources_of
from coterie.api.verse import marked, scan_text
from coterie.api.verse import score as score_text
from coterie.cli.console import console, emit_json, next_step
from coterie.data.sources import texts_of
from coterie.foundation.errors import UserError
from coterie.language.verse.scansion import Scan

_AREAS = {"metre": "Metre", "rhyme": "Rhyme", "words": "Words", "structure": "Structure",
          "copying": "Copying"}  # fmt: skip


def scan(
    file: Path,
    *,
    metre: str = "iambic-pentameter",
    lines: int = 200,
    json: bool = False,
) -> None:
    """Mark the stresses of a text's lines and say why: `coterie verse scan FILE`.

    Parameters
    ----------
    file
        A text, plain or with the tags of plays; empty lines part stanzas.
    metre
        What the lines are held against; an unknown name lists them all.
    lines
        How many lines to show.
    json
        Print JSON, of all lines.
    """
    scans = scan_text(_read(file), metre)
    if not scans:
        raise UserError(f"{file} has no line of words to scan.")
    metrical = sum(each.metrical for _, _, each in scans)
    if json:
        emit_json({
            "file": str(file), "metre": metre, "metrical": metrical,
            "lines": [_line(number, line, found) for number, line, found in scans],
        })  # fmt: skip
        return
    for number, line, found in scans[:lines]:
        _show(number, line, found)
    if len(scans) > lines:
        console.print(f"… and {len(scans) - lines:,} more lines: --lines {len(scans)}")
    share = metrical / len(scans)
    console.print(f"{metrical:,} of {len(scans):,} lines ({share:.0%}) are in {metre}.")
    next_step(f"coterie verse score {file} --metre {metre}")


def score(
    file: Path,
    *,
    metre: str = "iambic-pentameter",
    form: str | None = None,
    training: Path | None = None,
    json: bool = False,
) -> None:
    """Measure metre, rhyme, words, structure and copying of a text: `coterie verse score FILE`.

    Parameters
    ----------
    file
        A text, plain or with the tags of plays, whose structure is then judged too.
    metre
        What the lines are held against; an unknown name lists them all.
    form
        What stanzas are held against: a name such as sonnet-shakespearean, or letters such as
        ABABCC; without it, rhymes are looked for.
    training
        A text that may have been copied from.
    json
        Print JSON.
    """
    found = score_text(
        _read(file), metre, form, training=_read(training) if training is not None else None
    )
    if json:
        emit_json({"file": str(file), **found})
        return
    for area, figures in found.items():
        table = Table(box=None, pad_edge=False, show_header=False, title_justify="left")
        table.add_column(style="dim", min_width=18)
        table.add_column()
        for name, value in figures.items():
            if value is not None:
                table.add_row(name.replace("_", " "), Text(_told(value)))
        console.print(Text(_AREAS[area], style="heading"))
        console.print(table)
    next_step(f"coterie verse scan {file} --metre {metre}")


def _read(file: Path) -> str:
    return "\n\n".join(texts_of(sources_of((str(file),))))


def _show(number: int, line: str, found: Scan) -> None:
    """Print a line with its marks above and the reasons below."""
    verdict = Text("✓" if found.metrical else "✗", "good" if found.metrical else "problem")
    cost = f"{found.cost:6.2f}" if math.isfinite(found.cost) else "     –"
    console.print(Text(" " * 15 + marked(line, found), "dim"), soft_wrap=True)
    console.print(Text.assemble(f"{number:>5} ", verdict, f"{cost}  {line}"), soft_wrap=True)
    told = [f"{reason.name} ({found.words[reason.word].text}) {reason.cost:+.2f}"
            for reason in found.reasons]  # fmt: skip
    if not found.said:
        told = ["does not fit: no reading has the syllables for it"]
    if told:
        console.print(Text(" " * 15 + ", ".join(told), "hint"), soft_wrap=True)


def _line(number: int, line: str, found: Scan) -> dict[str, Any]:
    return {
        "line": number,
        "text": line,
        "metrical": found.metrical,
        "cost": round(found.cost, 3) if math.isfinite(found.cost) else None,
        "limit": round(found.limit, 3),
        "pattern": found.pattern,
        "words": [
            {"word": word.text, "marks": marks, "signature": said.signature,
             "licences": list(said.licences)}
            for word, marks, said in zip(found.words, found.marks, found.said, strict=False)
        ],
        "reasons": [{"word": found.words[reason.word].text, "reason": reason.name,
                     "cost": reason.cost} for reason in found.reasons],
    }  # fmt: skip


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(map(str, value[:12])) + (" …" if len(value) > 12 else "") or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
