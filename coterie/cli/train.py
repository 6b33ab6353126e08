"""`coterie train`: a preset and `key=value` words become a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.launching import Where, deepspeed_word, launched, together, trained
from coterie.cli.words import Words, one_target, read_words
from coterie.foundation.errors import UserError
from coterie.foundation.runs import RunDirectory, find_run

if TYPE_CHECKING:
    from coterie.foundation.layers import Resolved
    from coterie.parallel.ranks import Ranks
    from coterie.train import RunSettings, TrainResult
    from coterie.train.look import Look

_USAGE = "For example: coterie train quickstart train.steps=500 data.source=my_book.txt"


def train(
    *words: str,
    name: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    profile: bool = False,
    memory_profile: bool = False,
    report_interval: int | None = None,
    devices: int | None = None,
    nodes: int = 1,
    rendezvous: str | None = None,
    max_restarts: int = 0,
    deepspeed: Path | None = None,
    json: bool = False,
) -> int | None:
    """Train a model: `coterie train PRESET [key=value ...] [@overlay.yaml ...]`.

    The target is a preset (`coterie presets list`), or a settings file of yours. `scale=tiny` picks
    a preset's small twin; `mode=speed` and `mode=memory` prefer the one to the other and change no
    loss but by rounding. With --resume the target is a run's name, path or `latest`.

    Parameters
    ----------
    words
        The preset or run, `key=value` changes and `@file.yaml` overlays, in any order.
    name
        The run's name; by default the preset's, with a number when that is taken.
    resume
        Go on with a run from its newest sound checkpoint. An imported model that has not taken a
        step here yet takes every key but those of model and tokenizer.
    dry_run
        Print what would be run (settings with their origin, counts, memory, time) and stop.
    profile
        Print where the time of a few steps goes and write a trace of them into the run's
        directory, for https://ui.perfetto.dev or chrome://tracing.
    memory_profile
        Record where the memory of a step goes, in the second step and every --report-interval
        steps. On a GPU also a snapshot for https://pytorch.org/memory_viz.
    report_interval
        Steps between two reports of --memory-profile; by default 100, or the run's length.
    devices
        Train in so many processes here, one a GPU; `parallel` says what they divide.
    nodes
        How many machines run this same command; needs --name and --rendezvous.
    rendezvous
        HOST:PORT of one of the machines.
    max_restarts
        How often all processes start anew, from the newest checkpoint, where one was lost.
    deepspeed
        DeepSpeed's JSON file: its engine divides the run among the processes (ZeRO).
    json
        With --dry-run, print the plan as JSON; otherwise print the result as JSON.
    """
    flags = {"--profile": profile, "--memory-profile": memory_profile, "--json": json}
    told = [flag for flag, given in flags.items() if given]
    told += [] if report_interval is None else ["--report-interval", str(report_interval)]
    look = _look(profile, memory_profile, report_interval, dry_run=dry_run)
    where = Where(devices, nodes, rendezvous, max_restarts)
    words += () if deepspeed is None else (deepspeed_word(deepspeed),)
    return _train(read_words(words), look, where, name, told, resume=resume, plan=dry_run)


def _train(
    parsed: Words,
    look: Look,
    where: Where,
    name: str | None,
    flags: list[str],
    *,
    resume: bool,
    plan: bool,
) -> int | None:
    """Train here, or start the processes that do; `plan`: only print what would be."""
    json = "--json" in flags
    target = None if resume else one_target(parsed, "preset", _USAGE)
    resolved = None if target is None else resolve_words(target, parsed)
    if resolved is not None and plan:
        _show_plan(resolved, as_json=json)
        return None
    settings = None if resolved is None else resolved.settings
    if where.several:
        return launched([*parsed.given, *flags], settings, name, Path(target or "run").stem, where)
    resumed = parsed.targets[0] if parsed.targets else "latest"
    with together(settings, resumed, parsed.layers()) as ranks:
        if target is None or settings is None:
            result, run = _resume(parsed, look, ranks)
        else:
            result, run = trained(settings, name, target, look, ranks)
        if ranks.is_first:
            if json:
                emit_json({"run": run.name, "path": str(run.path), **result.summary()})
            finish(run)
    return None


def _look(profile: bool, memory: bool, interval: int | None, *, dry_run: bool) -> Look:
    """Return what looks into the steps of a run, as asked for."""
    if dry_run and (profile or memory):
        raise UserError(
            f"--{'profile' if profile else 'memory-profile'} records training steps, and --dry-run "
            "takes none.",
            hint="Leave one of them out; --dry-run tells the memory as it will be.",
        )
    if profile and memory:
        raise UserError(
            "--memory-profile watches every operator of a step, so its times would mean nothing.",
            hint="Leave --profile out, or take it in another run.",
        )
    if interval is not None and not memory:
        raise UserError(
            "--report-interval says how often --memory-profile reports, and that is not asked for.",
            hint=f"coterie train … --memory-profile --report-interval {interval}",
        )
    from coterie.train.look import StepLook
    from coterie.train.memory_profile import memory_profile
    from coterie.train.profile import StepProfile

    if memory:
        return memory_profile(interval)
    return StepProfile if profile else StepLook


def resolve_words(target: str, words: Words) -> Resolved[RunSettings]:
    """Resolve a preset or settings file, its scale and the words laid over it."""
    from coterie.api.given import resolve

    words, scale = words.take("scale")
    words, mode = words.take("mode")
    return resolve(target, words.layers(), scale, mode)


def _resume(words: Words, look: Look, ranks: Ranks) -> tuple[TrainResult, RunDirectory]:
    """Go on with the run that the words name."""
    from coterie.api.training import resume_training

    run = find_run(one_target(words, "run", "For example: coterie train --resume latest", "latest"))
    keys = [word.partition("=")[0] for word in words.overrides]
    files = bool(words.overlays)
    return resume_training(run, words.layers(), keys, files=files, look=look, ranks=ranks), run


def finish(run: RunDirectory) -> None:
    """Say where the results are and what can be done next."""
    stderr.print(f"Report: {run.report}", soft_wrap=True)
    next_step(
        f'coterie generate {run.name} "ROMEO:"  # write text with it',
        f"coterie evaluate {run.name}  # measure it",
        f"coterie train --resume {run.name} train.steps=...  # train it for longer",
    )


def _show_plan(resolved: Resolved[RunSettings], *, as_json: bool) -> None:
    """Print what a run would be."""
    from coterie.cli.plan import plan_as_json, print_plan

    if as_json:
        emit_json(plan_as_json(resolved))
    else:
        print_plan(resolved, console)
