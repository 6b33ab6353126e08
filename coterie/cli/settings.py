"""`coterie settings`: what a key means, what it may be, and which presets set it."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from coterie.api.editor import editor_schema
from coterie.api.explain import Explanation, Meaning, explain, meanings, shown_value
from coterie.cli.console import console, emit_json, facts, next_step
from coterie.foundation.files import write_json_atomic


def settings(
    key: str | None = None, *, json: bool = False, json_schema: Path | None = None
) -> None:
    """Explain a setting or a whole section: `coterie settings [KEY]`.

    Shows its type, default and choices, each with a line about it, and what the presets set it to.
    Without a KEY the sections are listed. The end of a key is enough where only one key ends so.

    Parameters
    ----------
    key
        A key such as `train.optimizer`, or a section such as `model`.
    json
        Print JSON; without a KEY all keys.
    json_schema
        Write a JSON Schema to this file, with which editors complete settings files in YAML.
    """
    if json_schema is not None:
        write_json_atomic(json_schema, editor_schema())
        console.print(f"Wrote {json_schema}", soft_wrap=True)
        next_step("coterie presets copy quickstart mine.yaml  # a file to edit with it")
        return
    if key is not None:
        found = explain(key)
        if json:
            emit_json(found.summary())
        else:
            _show(found)
        return
    if json:
        emit_json({name: explain(name).summary()["meanings"] for name in meanings()})
        return
    _show_sections()


def _show_sections() -> None:
    """Print the keys of the first two levels, with what they are."""
    table = Table.grid(padding=(0, 2))
    for name, (meaning, *_) in meanings().items():
        depth = name.count(".")
        if depth > 1:
            continue
        label = Text("  " * depth + name.rpartition(".")[2], "" if depth else "heading")
        table.add_row(label, meaning.description)
    console.print(table)
    next_step(
        "coterie settings model.attention  # one of them, with its choices",
        "coterie train PRESET --dry-run  # all values of a preset, and where they come from",
    )


def _show(found: Explanation) -> None:
    for number, meaning in enumerate(found.meanings):
        if number:
            console.print()
        _show_meaning(meaning)
    if found.presets:
        console.print("\nSet by presets:", style="heading")
        rows = ((name, shown_value(value)) for name, value in found.presets.items())
        console.print(facts(rows))
    steps = [f"coterie settings {found.key}.{name}" for name in found.meanings[0].below[:1]]
    example = shown_value(_example(found.meanings[0]))
    steps.append(f"coterie train quickstart {found.key}={example} --dry-run")
    next_step(*steps)


def _show_meaning(meaning: Meaning) -> None:
    title = Text.assemble((meaning.key, "heading"), f"  {meaning.description}")
    console.print(title, soft_wrap=True)
    rows = [("type", meaning.type)]
    if meaning.kinds:
        rows.append(("where", "\n".join(meaning.kinds)))
    rows.append(("default", "none" if meaning.required else shown_value(_brief(meaning.default))))
    if meaning.below:
        rows.append(("keys", ", ".join(meaning.below)))
    console.print(facts(rows))
    if meaning.choices and meaning.choices[0][1]:
        console.print("choices", style="dim")
        table = Table.grid(padding=(0, 2))
        for name, line in meaning.choices:
            table.add_row(f"  {name}", line)
        console.print(table)


def _brief(default: Any) -> Any:
    """Return the kind alone of a part."""
    return default.get("kind", default) if isinstance(default, dict) else default


def _example(meaning: Meaning) -> Any:
    """Return a value that may stand at a key."""
    if meaning.choices:
        return meaning.choices[-1][0]
    return "..." if meaning.default is None or meaning.below else meaning.default
