"""`coterie align`: from a model that continues text to one that answers, by rows of files."""

from __future__ import annotations

from pathlib import Path

from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.words import read_words
from coterie.foundation.errors import UserError

_WANTED = {"sft": "conversations", "dpo": "preferences", "kto": "marked answers"}


def sft(
    *words: str, name: str | None = None, lora: int | None = None, dry_run: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Fine-tune a model on conversations: `coterie align sft RUN ROWS [key=value ...]`.

    ROWS is a JSONL or Parquet file with `messages`, ShareGPT's `conversations`, `prompt` and
    `completion`, or `instruction`, `input` and `output`. What the assistant says is learnt, and
    nothing else, unless `align.loss=all`. Then: coterie generate RUN --chat "A question".

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `train.epochs=2`, `align.template=plain`,
        `align.lora.parts=[attention]` and others.
    name
        The new run's name; by default the old one's with `-sft`.
    lora
        Tune adapters of this rank in place of all weights.
    dry_run
        Print what would be run, memory included, and stop.
    json
        Print the result, or the plan, as JSON.
    """
    _align("sft", words, name, lora, dry_run=dry_run, json=json)


def dpo(
    *words: str, name: str | None = None, lora: int | None = None, dry_run: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Learn preferences (DPO): `coterie align dpo RUN PAIRS [key=value ...]`.

    PAIRS is a JSONL or Parquet file with `prompt`, `chosen` and `rejected`: texts, or messages. The
    run itself, as it is, is the reference: its log-probabilities are computed once and kept.
    `align.loss=ipo` and `align.label_smoothing=0.1` are variants.

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `align.beta=0.05` and others.
    name
        The new run's name; by default the old one's with `-dpo`.
    lora
        Tune adapters of this rank in place of all weights.
    dry_run
        Print what would be run, memory included, and stop.
    json
        Print the result, or the plan, as JSON.
    """
    _align("dpo", words, name, lora, dry_run=dry_run, json=json)


def kto(
    *words: str, name: str | None = None, lora: int | None = None, dry_run: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Learn from answers that are marked good or bad (KTO): `coterie align kto RUN ROWS`.

    ROWS is a JSONL or Parquet file of conversations, each with a true or false `label`.

    Parameters
    ----------
    words
        The run to begin with, the file, and changes: `align.beta=0.05` and others.
    name
        The new run's name; by default the old one's with `-kto`.
    lora
        Tune adapters of this rank in place of all weights.
    dry_run
        Print what would be run, memory included, and stop.
    json
        Print the result, or the plan, as JSON.
    """
    _align("kto", words, name, lora, dry_run=dry_run, json=json)


def _align(
    kind: str, words: tuple[str, ...], name: str | None, lora: int | None, *, dry_run: bool,
    json: bool,
) -> None:  # fmt: skip
    """Do what the words ask for, with one of the methods that read rows."""
    parsed = read_words(words)
    if len(parsed.targets) != 2:
        raise UserError(
            f"A run and a file of {_WANTED[kind]} are wanted, not {len(parsed.targets)} words.",
            hint=f"For example: coterie align {kind} latest rows.jsonl",
        )
    from coterie.api.alignment import aligned, plan_alignment, run_alignment
    from coterie.api.model import tell_damaged
    from coterie.checkpoint import load_model
    from coterie.cli.plan import plan_rows

    target, data = parsed.targets
    said: dict[str, object] = {"data": str(Path(data))}
    if lora is not None:
        said["lora"] = {"rank": lora}
    base = load_model(target, on_damaged=tell_damaged)
    settings = aligned(kind, base, said, parsed.layers())
    if dry_run:
        settings, plan = plan_alignment(settings)
        if json:
            emit_json({"plan": plan.summary(), "settings": settings.model_dump(mode="json")})
        else:
            console.print(facts(plan_rows(plan)))
        return
    run, result = run_alignment(kind, base, settings, name)
    if json:
        emit_json({"run": run.name, "path": str(run.path), **result.summary()})
    stderr.print(f"Report: {run.report}", soft_wrap=True)
    next_step(
        f'coterie generate {run.name} --chat "A question"  # ask it',
        f"coterie train --resume {run.name} train.epochs=...  # train it for longer",
    )
