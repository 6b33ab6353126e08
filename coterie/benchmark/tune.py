"""What makes a run fastest on this machine: one factor at a time, around the best so far.

Each candidate meets the best so far in a duel: whole optimizer steps on the run's own first batch,
in turns, so that whatever else the machine does meets both. It takes the best's place where it was
`WORTH` times as fast in the median and faster in three turns of four. Of many candidates some win
so by chance; therefore all that won meets the settings as they were in a last, longer duel, and is
recommended only if it wins that too. Both sides share weights and optimizer, so a duel needs little
more memory than the run. What cannot be tried, or not within the limit, is told.
"""

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
TURNS, FINAL_TURNS = 5, 21  # at least; three in four of 21 are won by chance once in 75 times
_CHOOSING = ("auto", "measured")  # kinds that choose among the others

Changes = Mapping[str, Any]
"""Values by dotted key."""

Spread = tuple[float, float, float]
"""The median, and the quartiles below and above it."""


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
    def gain(self) -> Spread:
        """How many times as fast it was."""
        gains = list(self.gains)
        if len(gains) == 1:
            gains *= 2  # what quartiles are of
        low, median, high = statistics.quantiles(gains, method="inclusive")
        return median, low, high

    @property
    def won(self) -> bool:
        """Whether it was faster by more than chance: enough, and in three turns of four."""
        median, low, _ = self.gain
        return low > 1 and median >= WORTH


Judge = Callable[[RunSettings, RunSettings, int], Duel]
"""Lets a second run meet a first one, in so many turns at least; what it raises is why not."""


@dataclass(frozen=True)
class Trial:
    """One line of the table: what was tried, and what came of it.

    Attributes:
        factor, choice: what was tried.
        rate: tokens per second, median; None where it was not tried.
        gain: over the best so far.
        chosen: whether it took the best's place.
        note: why not, or what else is to be known.
    """

    factor: str
    choice: str
    rate: float | None = None
    gain: Spread | None = None
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True)
class Tuning:
    """What is fastest here.

    Attributes:
        trials: all that was tried, in order.
        taken: values by dotted key that won, each over the best so far.
        total: all of them together beside the settings as they were; None where nothing won, or
            where the duel could not be held.
        machine: on which.
    """

    trials: tuple[Trial, ...]
    taken: Changes
    total: Duel | None
    machine: Mapping[str, Any]

    @property
    def changes(self) -> Changes:
        """What to change: all that was taken, if all of it together is faster; else nothing."""
        return self.taken if self.total is not None and self.total.won else {}

    @property
    def gain(self) -> Spread | None:
        """Of all that was taken together over the settings as they were."""
        return None if self.total is None else self.total.gain

    def overlay(self) -> str:
        """Return the recommendation as the text of a settings file."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        head = f"# Made by coterie tune. {self.verdict()}\n# {machine}\n"
        return head + to_yaml(nested(self.changes))

    def verdict(self) -> str:
        """Return what came of it, in a sentence."""
        if not self.taken:
            return "Nothing is faster than the settings as they are."
        if self.total is None:
            return "What won could not be measured together."
        said = (
            "Together, what won is {:.2f} times as fast as the settings as they were (quartiles "
            "{:.2f}–{:.2f}, {} turns)"
        ).format(*self.total.gain, len(self.total.gains))
        return f"{said}." if self.changes else f"{said}: too little to tell from chance."

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "gain": self.gain, "overlay": nested(self.changes)}


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
        precision: what it computes in as it is.
    """
    best, taken, trials = settings, dict[str, Any](), list[Trial]()
    factors: dict[str, Callable[[RunSettings], Iterator[tuple[str, Changes] | Trial]]] = {
        "precision": lambda run: _precisions(precision),
        "threads": lambda run: _threads(device),
        "micro-batch": _micro_batches,
        "attention": lambda run: _kinds(run, device, "attention", "backend", Backend),
        "experts": lambda run: _kinds(run, device, "experts", "kernel", Kernel),
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
                best, taken = candidate, {**taken, **change}
    total = None
    if taken:
        tell("all that was taken, beside the settings as they were")
        try:
            total = judge(settings, best, FINAL_TURNS)
        except Exception as error:  # as below
            trials.append(Trial("all", "together", note=f"not tried: {told(error)}"))
    return Tuning(tuple(trials), taken, total, describe_machine(device))


def _try(
    factor: str, choice: str, best: RunSettings, candidate: RunSettings, judge: Judge
) -> Trial:
    try:
        duel = judge(best, candidate, TURNS)
    except Exception as error:  # back ends and compilers refuse in ways of their own
        return Trial(factor, choice, note=f"not tried: {told(error)}")
    rate, chosen, note = statistics.median(duel.rates), duel.won, ""
    if factor == "compile" and chosen:
        chosen, note = _pays(duel, rate, candidate)
    return Trial(factor, choice, rate, duel.gain, chosen, note)


def told(error: Exception) -> str:
    """Return why something could not be tried."""
    said = reason(error)
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate" in said
    return "not enough memory" if short else said


def _pays(duel: Duel, rate: float, run: RunSettings) -> tuple[bool, str]:
    """Return whether compiling gains more over the whole run than it takes, and both in words."""
    seconds = run.train.batch_size * run.model.context / rate
    saved = (duel.gain[0] - 1) * seconds * run.train.steps
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
    run: RunSettings, device: torch.device, factor: str, name: str, annotation: Any
) -> Iterator[tuple[str, Changes] | Trial]:
    kinds = [kind_of(member) for member in members(annotation)]
    if device.type == "cpu" and "triton" in kinds:
        kinds.remove("triton")  # other code takes its place there
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
