"""`coterie verse`: scan lines and say why, measure verse, and draw a poem."""

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
from coterie.cli.words import Words, read_words
from coterie.data.sources import texts_of
from coterie.foundation.errors import UserError
from coterie.foundation.printable import printable
from coterie.language.verse.scansion import Scan

_AREAS = {"written": "Written", "metre": "Metre", "rhyme": "Rhyme", "words": "Words",
          "structure": "Structure", "copying": "Copying"}  # fmt: skip
_USAGE = "For example: coterie verse score poem.txt   or: coterie verse score latest form=sonnet"


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
    *words: str,
    metre: str | None = None,
    form: str | None = None,
    training: Path | None = None,
    samples: int = 4,
    saved: bool = False,
    json: bool = False,
) -> None:
    """Measure metre, rhyme, words, structure and copying: `coterie verse score FILE|RUN`.

    Of a run, texts are written and measured: `coterie verse score RUN PROMPT form=sonnet`; a prompt
    belongs to each text, keys are those of `coterie generate`.

    Parameters
    ----------
    words
        A text, plain or with the tags of plays, whose structure is then judged too; or a run, and
        perhaps a prompt and settings as key=value.
    metre
        What the lines are held against; an unknown name lists them all. By default what a run was
        told to write in, else iambic-pentameter.
    form
        What stanzas are held against: a name such as sonnet-shakespearean, or letters such as
        ABABCC; by default what a run was told to write, else rhymes are looked for.
    training
        A text that may have been copied from; of a run by default its own training split.
    samples
        How many texts a run writes.
    saved
        Measure what the run wrote when it was last sampled in training.
    json
        Print JSON.
    """
    said = read_words(words)
    if not said.targets:
        raise UserError("Which text or run? None was named.", hint=_USAGE)
    target, known = said.targets[0], None if training is None else _read(training)
    text = _is_text(Path(target))
    if text and (said.overrides or said.overlays or saved or said.targets[1:]):
        raise UserError(f"{target} is a text: keys, a prompt and --saved are for runs.")
    if text:
        found = score_text(_read(Path(target)), metre or "iambic-pentameter", form, known)
    else:
        found = _score_run(said, saved, samples, metre, form, known)
    if json:
        emit_json({"file" if text else "run": target, **found})
        return
    _show_areas(found)
    if text:
        next_step(f"coterie verse scan {target} --metre {metre or 'iambic-pentameter'}")


def _score_run(
    said: Words, saved: bool, samples: int, metre: str | None, form: str | None, known: str | None
) -> dict[str, dict[str, Any]]:
    from coterie.api.model import load
    from coterie.api.poems import score_run, score_saved

    model = load(said.targets[0])
    if saved:
        return score_saved(model, metre, form, known)
    prompt = " ".join(said.targets[1:])
    return score_run(model, prompt, samples, *said.layers(), metre=metre, form=form, training=known)


def _show_areas(found: dict[str, dict[str, Any]]) -> None:
    for area, figures in found.items():
        table = Table(box=None, pad_edge=False, show_header=False, title_justify="left")
        table.add_column(style="dim", min_width=18)
        table.add_column()
        for name, value in figures.items():
            if value is not None:
                table.add_row(name.replace("_", " "), Text(_told(value)))
        console.print(Text(_AREAS[area], style="heading"))
        console.print(table)


def picture(
    file: Path,
    *,
    out: Path,
    metre: str = "iambic-pentameter",
    form: str | None = None,
    title: str = "",
    dark: bool = False,
) -> None:
    """Draw a poem with its stresses, rhymes and licences: `coterie verse picture FILE --out FILE`.

    Parameters
    ----------
    file
        A text, plain or with the tags of plays; empty lines part stanzas.
    out
        Where to: a .svg, which follows the reader's light or dark theme, or a .png.
    metre
        What the lines are held against; an unknown name lists them all.
    form
        Which lines should rhyme: a name such as sonnet, or letters; without it, rhymes are looked
        for.
    title
        Stands above the poem.
    dark
        Light on dark.
    """
    from coterie.visualise.poem import write_poem

    write_poem(_read(file), out, metre=metre, form=form, title=title, dark=dark)
    console.print(f"Drawn: {printable(str(out))}", highlight=False, soft_wrap=True)


def _is_text(file: Path) -> bool:
    """Whether a target is a text rather than a run: it exists, and is no folder of a run."""
    parts = ("checkpoints", "config.yaml", "model.safetensors")
    return file.exists() and not any((file / part).exists() for part in parts)


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
