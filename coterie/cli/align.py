"""`coterie align`: from a model that continues text to one that answers, by rows of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.words import Words, read_words
from coterie.foundation.errors import UserError

if TYPE_CHECKING:
    from coterie.foundation.runs import RunDirectory

_WANTED = {
    "sft": "conversations",
    "dpo": "preferences",
    "kto": "marked answers",
    "reward-model": "preferences",
}


@Parameter(name="*")
@dataclass(frozen=True)
class AlignFlags:
    """How a run is aligned, whatever the method."""

    name: Annotated[
        str | None,
        Parameter(help="The new run's name; by default the old one's with the method's behind it."),
    ] = None
    lora: Annotated[
        int | None, Parameter(help="Tune adapters of this rank in place of all weights.")
    ] = None
    dry_run: Annotated[
        bool, Parameter(help="Print what would be run, memory included, and stop.")
    ] = False
    json: Annotated[bool, Parameter(help="Print the result, or the plan, as JSON.")] = False


_PLAIN = AlignFlags()


def sft(*words: str, flags: AlignFlags = _PLAIN) -> None:
    """Fine-tune a model on conversations: `coterie align sft RUN ROWS [key=value ...]`.

    ROWS is a JSONL or Parquet file with `messages`, ShareGPT's `conversations`, `prompt` and
    `completion`, or `instruction`, `input` and `output`. What the assistant says is learnt, and
    nothing else, unless `align.loss=all`. Then: coterie generate RUN --chat "A question".

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `train.epochs=2`, `align.template=plain`,
        `align.lora.parts=[attention]` and others.
    """
    _align("sft", words, flags)


def dpo(*words: str, flags: AlignFlags = _PLAIN) -> None:
    """Learn preferences (DPO): `coterie align dpo RUN PAIRS [key=value ...]`.

    PAIRS is a JSONL or Parquet file with `prompt`, `chosen` and `rejected`: texts, or messages. The
    run itself, as it is, is the reference: its log-probabilities are computed once and kept.
    `align.loss=ipo` and `align.label_smoothing=0.1` are variants.

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `align.beta=0.05` and others.
    """
    _align("dpo", words, flags)


def kto(*words: str, flags: AlignFlags = _PLAIN) -> None:
    """Learn from answers that are marked good or bad (KTO): `coterie align kto RUN ROWS`.

    ROWS is a JSONL or Parquet file of conversations, each with a true or false `label`.

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `align.beta=0.05` and others.
    """
    _align("kto", words, flags)


def reward_model(*words: str, flags: AlignFlags = _PLAIN) -> None:
    """Learn to judge from preferences: `coterie align reward-model RUN PAIRS [key=value ...]`.

    PAIRS is a file as for `coterie align dpo`. The value head learns one number for a text
    (Bradley and Terry), which is a reward then: --reward model:run=NAME.

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `train.epochs=2` and others.
    """
    _align("reward-model", words, flags)


def _align(kind: str, words: tuple[str, ...], flags: AlignFlags) -> None:
    """Do what the words ask for, with one of the methods that read rows."""
    parsed = read_words(words)
    if len(parsed.targets) != 2:
        raise UserError(
            f"A run and a file of {_WANTED[kind]} are wanted, not {len(parsed.targets)} words.",
            hint=f"For example: coterie align {kind} latest rows.jsonl",
        )
    target, data = parsed.targets
    run = run_aligned(kind, target, {"data": str(Path(data))}, parsed, flags)
    if run is not None and kind == "reward-model":
        next_step(f"coterie align grpo {target} --reward model:run={run.name}  # judge with it")
    elif run is not None:
        next_step(
            f'coterie generate {run.name} --chat "A question"  # ask it',
            f"coterie train --resume {run.name} train.epochs=...  # train it for longer",
        )


def run_aligned(
    kind: str, target: str, said: dict[str, Any], words: Words, flags: AlignFlags
) -> RunDirectory | None:
    """Align a run and return the new one, or only show what would be run."""
    from coterie.api.alignment import aligned, plan_alignment, run_alignment
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model
    from coterie.cli.plan import plan_rows

    if flags.lora is not None:
        said = {**said, "lora": {"rank": flags.lora}}
    base = load_model(target, on_damaged=tell_damaged)
    settings = aligned(kind, base, said, words.layers())
    if flags.dry_run:
        settings, plan = plan_alignment(settings)
        if flags.json:
            emit_json({"plan": plan.summary(), "settings": settings.model_dump(mode="json")})
        else:
            console.print(facts(plan_rows(plan)))
        return None
    run, result = run_alignment(kind, base, settings, flags.name)
    if flags.json:
        emit_json({"run": run.name, "path": str(run.path), **result.summary()})
    stderr.print(f"Report: {run.report}", soft_wrap=True)
    return run
