"""What makes a run fastest on this machine: one factor at a time, around the best so far.

Each candidate meets the best so far in a duel: whole optimizer steps on the run's own first batch,
in turns, so that whatever else the machine does meets both. It takes the best's place where it was
`WORTH` times as fast in the median and faster in three turns of four. Both sides share weights and
optimizer, so a duel needs little more memory than the run. What cannot be tried is told.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from coterie.foundation.compiled import reason
from coterie.foundation.cores import usable_cores
from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.records import to_yaml
from coterie.foundation.settings import kind_of, members
from coterie.model import Kernel
from coterie.model.attention.backends import Backend
from coterie.train import RunSettings
from coterie.train.compiling import missing_compiler
from coterie.train.machine import describe_machine

WORTH = 1.03
_SURE = 0.75  # of the turns
_CHOOSING = ("auto", "measured")  # kinds that choose among the others

Changes = Mapping[str, Any]
"""Values by dotted key."""


@dataclass(frozen=True)
class Duel:
    """How a candidate did beside the best so far.

    Attributes:
        rates: tokens per second of the candidate, of each turn.
        gains: how many times as fast it was, of each turn.
        first: seconds of its first step, compiling included.
    """

    rates: tuple[float, ...]
    gains: tuple[float, ...]
    first: float = 0.0

    @property
    def gain(self) -> float:
        """The median."""
        return statistics.median(self.gains)

    @property
    def won(self) -> bool:
        """Whether it was faster by more than chance."""
        sure = sum(gain > 1 for gain in self.gains) >= _SURE * len(self.gains)
        return sure and self.gain >= WORTH


Judge = Callable[[RunSettings, RunSettings], Duel]
"""Lets a second run meet a first one. Whatever it raises is why that cannot be tried."""


@dataclass(frozen=True)
class Trial:
    """One line of the table: what was tried, and what came of it.

    Attributes:
        factor, choice: what was tried.
        rate: tokens per second, median; None where it was not tried.
        gain: over the best so far: median, smallest and largest.
        chosen: whether it took the best's place.
        note: why not, or what else is to be known.
    """

    factor: str
    choice: str
    rate: float | None = None
    gain: tuple[float, float, float] | None = None
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True)
class Tuning:
    """What is fastest here.

    Attributes:
        trials: all that was tried, in order.
        changes: values by dotted key that the recommendation changes; empty: nothing is faster.
        gain: of all changes together over the settings as they were, measured once more: median,
            smallest and largest; None without changes.
        machine: on which.
    """

    trials: tuple[Trial, ...]
    changes: Changes
    gain: tuple[float, float, float] | None
    machine: Mapping[str, Any]

    def overlay(self) -> str:
        """Return the recommendation as the text of a settings file."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        gain = "1.00 (nothing was faster)" if self.gain is None else (
            f"{self.gain[0]:.2f} ({self.gain[1]:.2f}–{self.gain[2]:.2f})"
        )  # fmt: skip
        head = f"# Made by coterie tune. Measured gain in tokens per second: {gain}.\n# {machine}\n"
        return head + to_yaml(nested(self.changes))

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "overlay": nested(self.changes)}


def tune(
    settings: RunSettings,
    judge: Judge,
    *,
    precision: str,
    device: torch.device,
    tell: Callable[[str], None] = lambda what: None,
) -> Tuning:
    """Return what is fastest for a run on this machine.

    Args:
        settings: the run's.
        judge: measures.
        precision: what it computes in as it is.
        device: where.
        tell: told what is tried next.
    """
    best, changes, trials = settings, dict[str, Any](), list[Trial]()
    factors: dict[str, Callable[[RunSettings], Iterator[tuple[str, Changes] | Trial]]] = {
        "precision": lambda run: _precisions(precision),
        "threads": lambda run: _threads(device),
        "micro-batch": _micro_batches,
        "attention": lambda run: _kinds(run, "attention", "backend", Backend),
        "experts": lambda run: _kinds(run, "experts", "kernel", Kernel),
        "compile": lambda run: _compile(run, device),
    }
    for factor, candidates in factors.items():
        for each in candidates(best):
            if isinstance(each, Trial):
                trials.append(each)
                continue
            choice, change = each
            tell(f"{factor}: {choice}")
            candidate = changed(best, change)
            trial = _try(factor, choice, best, candidate, judge)
            trials.append(trial)
            if trial.chosen:
                best, changes = candidate, {**changes, **change}
    gain = None
    if changes:
        tell("all of it beside what it was")
        gains = judge(settings, best).gains
        gain = (statistics.median(gains), min(gains), max(gains))
    return Tuning(tuple(trials), changes, gain, describe_machine(device))


def _try(
    factor: str, choice: str, best: RunSettings, candidate: RunSettings, judge: Judge
) -> Trial:
    try:
        duel = judge(best, candidate)
    except Exception as error:  # back ends and compilers refuse in ways of their own
        return Trial(factor, choice, note=f"not tried: {reason(error)}")
    rate, chosen, note = statistics.median(duel.rates), duel.won, ""
    if factor == "compile" and chosen:
        chosen, note = _pays(duel, rate, candidate)
    gain = (duel.gain, min(duel.gains), max(duel.gains))
    return Trial(factor, choice, rate, gain, chosen, note)


def _pays(duel: Duel, rate: float, run: RunSettings) -> tuple[bool, str]:
    """Return whether compiling gains more over the whole run than it takes, and both in words."""
    seconds = run.train.batch_size * run.model.context / rate
    saved = (duel.gain - 1) * seconds * run.train.steps
    return saved > duel.first, (
        f"gains {saved:,.0f} s over {run.train.steps:,} steps, takes {duel.first:,.0f} s"
    )


def _precisions(present: str) -> Iterator[tuple[str, Changes]]:
    for name in ("float32", "bfloat16"):
        if name != present:
            yield name, {"train.precision": name}


def _threads(device: torch.device) -> Iterator[tuple[str, Changes] | Trial]:
    cores, present = len(usable_cores()), torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        where = "one core" if device.type == "cpu" else f"they matter little on {device.type}"
        yield Trial("threads", str(present), note=f"nothing to choose: {where}")
        return
    for count in sorted({1, max(cores // 2, 1), cores} - {present}):
        yield str(count), {"train.threads": count}


def _micro_batches(run: RunSettings) -> Iterator[tuple[str, Changes] | Trial]:
    rows, pieces = run.train.batch_size, run.train.gradient_accumulation
    wanted = {pieces * 2, pieces * 4, *([pieces // 2] if pieces % 2 == 0 else [])}
    able = sorted(each for each in wanted if rows % each == 0)
    if not able:
        yield Trial("micro-batch", f"{rows // pieces}", note="nothing to choose: it cannot be cut")
    for each in able:
        yield f"{rows // each} rows", {"train.gradient_accumulation": each}


def _kinds(
    run: RunSettings, factor: str, name: str, annotation: Any
) -> Iterator[tuple[str, Changes] | Trial]:
    kinds = [kind_of(member) for member in members(annotation)]
    places = {
        key: kind
        for key, kind in _places(run.model.model_dump(mode="json"), name, "model")
        if kind in kinds
    }
    if not places:
        yield Trial(factor, "none", note="nothing to choose: no part of the model has one")
        return
    for kind in kinds:
        if kind not in _CHOOSING and {kind} != set(places.values()):
            yield kind, {key: {"kind": kind} for key in places}


def _places(value: Any, name: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, kind) of every part of a name."""
    if not isinstance(value, Mapping):
        return
    for key, each in value.items():
        if key == name and isinstance(each, Mapping):
            yield f"{path}.{key}", str(each.get("kind"))
        else:
            yield from _places(each, name, f"{path}.{key}")


def _compile(run: RunSettings, device: torch.device) -> Iterator[tuple[str, Changes] | Trial]:
    if run.train.compile is True:
        yield "no", {"train.compile": False}
    elif missing := missing_compiler(device):
        yield Trial("compile", "yes", note=f"not tried: {missing}")
    else:
        yield "yes", {"train.compile": True}


def nested(changes: Changes) -> dict[str, Any]:
    """Return values by dotted key as nested mappings."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        *path, last = key.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def changed(run: RunSettings, changes: Changes) -> RunSettings:
    """Return a run's settings with values laid over them."""
    layers: Sequence[Layer] = [
        Layer("the run", run.model_dump(mode="json")),
        Layer("tune", nested(changes)),
    ]
    return load_settings(RunSettings, layers).settings
