"""`coterie model quantise`: a run whose weights take few bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from coterie.cli.console import console, emit_json, next_step
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError
from coterie.foundation.layers import Layer

if TYPE_CHECKING:
    from coterie.foundation.runs import RunDirectory
    from coterie.quantise import WeightSettings

_USAGE = "For example: coterie model quantise latest --weights int8"


def quantise(
    *words: str,
    weights: str | None = None,
    name: str | None = None,
    step: int | None = None,
    json: bool = False,
) -> None:
    """Make a run whose weights take few bits: `coterie model quantise RUN --weights int8`.

    Matrices, packed experts included, become whole numbers with float32 scales; norms, biases and
    routers stay as they are. The embedding and a head of its own have settings: with int4 they are
    int8 unless `weights.embedding=` or `weights.head=` says int4 or float32. The new run writes,
    scores and is shown as any other; it cannot be trained.

    Parameters
    ----------
    words
        The run, and settings of the format as `weights.key=value`.
    weights
        The format: int8 or int4.
    name
        The new run's name; by default the old one's with the format.
    step
        Use the checkpoint of this step instead of the newest.
    json
        Print JSON.
    """
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import checkpoint_bytes, load_model
    from coterie.checkpoint.layout import MODEL, stored
    from coterie.exchange.runs import write_derived_run
    from coterie.quantise import quantise as quantise_model
    from coterie.quantise import stored_bytes

    target, chosen = _asked(words, weights)
    loaded = load_model(target, step=step, on_damaged=tell_damaged)
    before = stored_bytes(loaded.decoder.parameters())
    quantise_model(loaded.decoder, chosen)
    values = chosen.model_dump(mode="json")
    run = write_derived_run(
        loaded, loaded.decoder, name=name, what="quantising", suffix=values["kind"],
        said=f"Its weights are {values['kind']}.", origin={"weights": values},
    )  # fmt: skip
    made = run.checkpoints / "step-00000000" / MODEL
    sizes = {
        "memory": (before, stored_bytes(loaded.decoder.parameters())),
        "disk": (checkpoint_bytes(stored(loaded.path, MODEL)), made.stat().st_size),
    }
    if json:
        bytes_ = {where: {"before": old, "after": new} for where, (old, new) in sizes.items()}
        found = {"run": run.name, "path": str(run.path), "from": str(loaded.path)}
        emit_json({**found, "weights": values, "bytes": bytes_})
        return
    _show(sizes)
    _show_made(run, target)


def _asked(words: tuple[str, ...], weights: str | None) -> tuple[str, WeightSettings]:
    """Return the run and the format.

    Raises:
        UserError: one is missing, or there is more than that.
    """
    from coterie.quantise import chosen_weights

    said, layers = read_words(words).take_settings("weights")
    if weights is not None:
        layers.insert(0, Layer("--weights", {"weights": {"kind": weights}}))
    if said.overrides or said.overlays:
        raise UserError("Quantising takes settings of `weights` alone.", hint=_USAGE)
    target = one_target(said, "run", _USAGE)
    chosen = chosen_weights(*layers)
    if chosen is None:
        raise UserError("Which format? Choose --weights int8 or --weights int4.", hint=_USAGE)
    return target, chosen


def _show_made(run: RunDirectory, target: str) -> None:
    console.print(f"\nMade {run.path}/", soft_wrap=True)
    next_step(
        f"coterie evaluate {run.name} FILE  # its perplexity, to hold against {target}'s",
        f'coterie generate {run.name} "Once"',
    )


def _show(sizes: dict[str, tuple[int, int]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("weights", "before", "after", ""):
        table.add_column(column, justify="right" if column else "left")
    for where, (old, new) in sizes.items():
        table.add_row(f"bytes {_PLACES[where]}", f"{old:,}", f"{new:,}", f"{new / old:.0%}")
    console.print(table)


_PLACES: dict[str, Any] = {"memory": "in memory", "disk": "on disk"}
