"""`coterie runs`: what has been trained here, and how it went."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.table import Table

from coterie.api.summary import summary
from coterie.cli.console import console, emit_json, facts, next_step, stderr
from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import UserError
from coterie.foundation.runs import find_run, runs_root
from coterie.foundation.runs import list_runs as all_runs


def list_runs(*, json: bool = False) -> None:
    """List the runs, the one active last at the end.

    Parameters
    ----------
    json
        Print JSON.
    """
    rows = [summary(run) for run in all_runs()]
    if json:
        emit_json(rows)
        return
    if not rows:
        stderr.print(f"No runs in {runs_root()}/ yet.")
        next_step("coterie train quickstart  # train the first one")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "preset", "status"):
        table.add_column(column)
    for column in ("step", "loss", "valid", "tokens", "last active"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"], row["preset"], row["status"], f"{row['step']}/{row['steps']}",
            _loss(row["loss"]), _loss(row["validation_loss"]), f"{row['tokens']:,}", row["active"],
        )  # fmt: skip
    console.print(table)
    complain(problem for row in rows for problem in row["problems"])
    next_step(f"coterie runs show {rows[-1]['name']}")


def show(*words: str, json: bool = False) -> None:
    """Show one run: `coterie runs show RUN`; RUN is a name, a path or `latest`.

    Parameters
    ----------
    words
        The run.
    json
        Print JSON.
    """
    run = find_run(one_target(read_words(words), "run", "For example: coterie runs show latest"))
    row = summary(run)
    row["checkpoints"] = sorted(path.name for path in run.checkpoints.glob("step-*"))
    row["files"] = [
        str(path) for path in (run.config, run.events, run.report, run.samples) if path.exists()
    ]
    if json:
        emit_json(row)
        return
    complain(row.pop("problems"))
    console.print(facts((key.replace("_", " "), _shown(value)) for key, value in row.items()))
    steps = [f"coterie report {run.name}  # one page about it"]
    if row["checkpoints"]:
        steps.append(f'coterie generate {run.name} "Once"  # write text with it')
    next_step(*steps)


def complain(problems: Iterable[str]) -> None:
    """Say what of a run could not be read, on standard error."""
    for problem in problems:
        stderr.print(problem, style="problem", soft_wrap=True)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(value)
    if isinstance(value, float) or value is None:
        return _loss(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def verify_resume(*words: str, steps: int = 10, json: bool = False) -> int:
    """Prove that a run resumes bit for bit on this machine: `coterie verify-resume RUN`.

    Takes steps from the newest checkpoint without a break, and once more with a checkpoint written
    and gone on from half way; compares every tensor and random state. The run is only read. Exit
    code 1 where anything differs.

    Parameters
    ----------
    words
        The run: its name, path or `latest`.
    steps
        To take each time, from 2 on.
    json
        Print JSON.
    """
    from coterie.align.methods import method_of
    from coterie.train.proof import prove_resume

    example = "For example: coterie verify-resume latest"
    run = find_run(one_target(read_words(words), "run", example))
    if steps < 2:
        raise UserError(f"--steps {steps} leaves no room for a break.", hint="--steps 10")
    proof = prove_resume(run, steps, stderr.print, method_of)
    if json:
        emit_json({**asdict(proof), "checkpoint": str(proof.checkpoint), "equal": proof.equal})
    elif proof.equal:
        console.print(
            f"{run.name} resumes bit for bit: {proof.steps} steps from step {proof.step:,} end in "
            f"the same {proof.tensors} tensors, losses and random states with and without a break "
            f"({proof.precision} on {proof.device})."
        )
        next_step(f"coterie train --resume {run.name}")
    else:
        told = [*proof.others, *proof.unequal]
        console.print(
            f"{run.name} does not resume bit for bit ({proof.precision} on {proof.device}): "
            f"{len(proof.unequal)} of {proof.tensors} tensors differ, up to {proof.apart:.3g}. "
            f"What differs begins with: {', '.join(told[:5])}."
        )
        next_step("coterie doctor  # what this machine computes with")
    return 0 if proof.equal else 1
