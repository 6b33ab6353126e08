"""`coterie presets`: the ready-made configurations, looked at and copied."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from coterie.cli.console import console, emit_json, facts, next_step
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError
from coterie.foundation.files import write_text_atomic
from coterie.foundation.places import is_taken
from coterie.presets import (
    preset_departures,
    preset_layers,
    preset_names,
    preset_scales,
    preset_text,
)

_USAGE = "For example: coterie presets show quickstart scale=tiny"


def list_presets(*, json: bool = False) -> None:
    """List the presets.

    Parameters
    ----------
    json
        Print JSON.
    """
    rows = [
        {
            "name": name,
            "scales": preset_scales(name),
            "description": " ".join(_description(name).split()),
        }
        for name in preset_names()
    ]
    if json:
        emit_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("preset", "scales", "what it is"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["name"], ", ".join(row["scales"]), row["description"])
    console.print(table)
    next_step(
        f"coterie presets show {rows[0]['name']}  # its layers and counts",
        f"coterie train {rows[0]['name']}  # train it",
    )


def _description(name: str) -> str:
    layers = reversed(preset_layers(name))
    return next(str(each.values["description"]) for each in layers if "description" in each.values)


def show(*words: str, json: bool = False) -> None:
    """Show a preset: `coterie presets show NAME [scale=tiny] [key=value ...]`.

    Prints the layer tree with exact parameter counts (all and active), operations per token (of a
    forward pass, mean over the context) and cache bytes per token (float32), what a run takes, and
    where the preset departs from the system of its name.

    Parameters
    ----------
    words
        The preset, its scale and `key=value` changes.
    json
        Print JSON: the counts, the plan, every setting and where it came from, the departures.
    """
    from coterie.api.planning import make_plan
    from coterie.cli.counting import cost_rows, counts_as_json, print_tree
    from coterie.cli.plan import plan_as_json, plan_rows
    from coterie.cli.train import resolve_words
    from coterie.model import count
    from coterie.train.pretraining import fill_vocabulary_size

    parsed = read_words(words)
    target = one_target(parsed, "preset", _USAGE)
    resolved = resolve_words(target, parsed)
    plan = make_plan(resolved.settings)
    settings = fill_vocabulary_size(resolved.settings, plan.vocab_size)
    counts = count(settings.model)
    departures = preset_departures(target)
    if json:
        emit_json(
            {"counts": counts_as_json(counts), **plan_as_json(resolved), "departures": departures}
        )
        return
    console.print(Text.assemble((target, "heading"), f"  {settings.description}\n"))
    print_tree(counts, console)
    console.print()
    console.print(facts([*plan_rows(plan), *cost_rows(counts)]))
    if departures:
        console.print("\nWhere it departs from the system of its name (docs/presets.md says more):")
        listed = Table.grid(padding=(0, 1), pad_edge=True)
        for sentence in departures:
            listed.add_row("–", sentence)
        console.print(listed)
    next_step(
        f"coterie train {target} --dry-run  # every setting and where it comes from",
        f"coterie presets copy {target} mine.yaml  # a copy to change",
        f"coterie train {target}",
    )


def copy(name: str, file: Path, *, force: bool = False) -> None:
    """Copy a preset to a file, comments included: `coterie presets copy NAME FILE`.

    Parameters
    ----------
    name
        The preset.
    file
        Where to write it; `coterie train FILE` then runs it.
    force
        Replace the file if it exists.
    """
    text = preset_text(name)
    if is_taken(file) and not force:
        raise UserError(f"{file} exists already.", hint="Choose another name, or add --force.")
    write_text_atomic(file, text, replace=force)
    console.print(f"Wrote {file}", soft_wrap=True)
    next_step(f"coterie train {file} --dry-run", f"coterie train {file}")
