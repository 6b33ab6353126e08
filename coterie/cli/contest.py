"""`coterie evaluate RUN --against RUN`: two models on the same held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from coterie.cli.console import console, emit_json, next_step
from coterie.cli.reinforce import read_reward
from coterie.foundation.errors import UserError

if TYPE_CHECKING:
    from coterie.checkpoint import LoadedModel
    from coterie.foundation.layers import Layer

_SHEET = 30  # prompts of a sheet


@Parameter(name="*")
@dataclass(frozen=True)
class ContestFlags:
    """Another model to hold the first against."""

    against: Annotated[
        str | None, Parameter(help="Another run: both write on the same held-out prompts.")
    ] = None
    reward: Annotated[
        list[str] | None,
        Parameter(help="What judges, as for coterie align grpo; by default what tuned the run."),
    ] = None
    sheet: Annotated[
        Path | None,
        Parameter(help="Write texts of both, unnamed, to print and mark; the key stands beside."),
    ] = None


def tell_contest(
    loaded: LoadedModel, flags: ContestFlags, layers: list[Layer], *, json: bool
) -> None:
    """Let two models write, and print who won and how their texts differ."""
    from coterie.align.contest import blind_sheet, contest
    from coterie.align.methods import method_of
    from coterie.align.reinforce.method import PromptData, ReinforceMethod
    from coterie.api.alignment import aligned
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model
    from coterie.foundation.files import write_text_atomic
    from coterie.visualise.console import note

    assert flags.against is not None
    other = load_model(flags.against, on_damaged=tell_damaged)
    said = _said(loaded, other, flags)
    settings = aligned("rejection", loaded, said, layers)
    method = method_of(settings, None)
    assert isinstance(method, ReinforceMethod)
    _, data = method.prepare(settings, note)
    assert isinstance(data, PromptData)
    found = contest(loaded, other, method, data)
    won, lost, even = found.wins
    share, low, high = found.win_rate
    if flags.sheet is not None:
        sheet, key = blind_sheet(found, _SHEET, settings.seed)
        write_text_atomic(flags.sheet, sheet)
        write_text_atomic(flags.sheet.with_name(f"{flags.sheet.name}.key"), key)
    if json:
        emit_json({
            "checkpoint": str(loaded.path), "against": str(other.path), "prompts": len(data.valid),
            "won": won, "lost": lost, "even": even, "win_rate": share, "interval": [low, high],
            "figures": found.one.figures, "against_figures": found.other.figures,
        })  # fmt: skip
        return
    console.print(
        f"{won} of {len(data.valid)} prompts won, {lost} lost, {even} even: win rate "
        f"{share:.1%} (95 %: {low:.1%}–{high:.1%})"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("figure", "run", "against"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for name, value in found.one.figures.items():
        table.add_row(name, f"{value:.3f}", f"{found.other.figures.get(name, float('nan')):.3f}")
    console.print(table)
    if flags.sheet is not None:
        next_step(f"cat {flags.sheet}  # print it and mark it; who is who: {flags.sheet.name}.key")


def _said(loaded: LoadedModel, other: LoadedModel, flags: ContestFlags) -> dict[str, Any]:
    """Return what judges, and how texts are drawn: as one of the two was tuned, else as usual.

    Raises:
        UserError: nothing says what judges.
    """
    tuned = [each.settings.get("align") or {} for each in (loaded, other)]
    own = next((each for each in tuned if each.get("rewards")), {})
    rewards = [read_reward(each) for each in flags.reward or ()] or own.get("rewards")
    if not rewards:
        raise UserError(
            "Neither run was tuned by rewards, so say what judges.",
            hint="For example: coterie evaluate mine --against other --reward metre",
        )
    kept = ("rollout", "prompts", "held_out", "prompt_lines", "judged_texts", "lines")
    return {"rewards": rewards, **{name: own[name] for name in kept if name in own}}
