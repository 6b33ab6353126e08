"""What a check is: a function of a bench, in a lane, under a time limit.

A check returns figures, raises `SkipError` where its subject is not there, and anything else where
a promise is broken. Lanes of one phase run side by side, the phases one after the other.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
PHASES = (("machine",), ("correct", "flex", "compiled", "train"), ("speed",))


class SkipError(Exception):
    """The subject of the check is not there; the message says what is missing."""


class CasesError(Exception):
    """Some cases of a check failed; the others' figures are kept."""

    def __init__(self, message: str, figures: dict[str, Any]) -> None:
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True)
class Bench:
    """Where a check runs.

    Attributes:
        device: cuda or cpu.
        tiny: whether to use sizes that two CPU cores manage in seconds.
        folder: for temporary files, shared by all checks.
        out: for files that are kept.
    """

    device: str
    tiny: bool
    folder: Path
    out: Path

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"

    def some(self, cases: Iterable[T], count: int = 1) -> list[T]:
        """Return all cases, or the first few in a rehearsal."""
        return list(cases)[: count if self.tiny else None]

    def wait(self) -> None:
        """Wait for the device's queue."""
        if self.cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Check:
    """A check as it is registered; `limit` is in seconds."""

    name: str
    lane: str
    limit: float
    run: Callable[[Bench], dict[str, Any]]


CHECKS: dict[str, Check] = {}


def check(name: str, lane: str, limit: float = 60.0) -> Callable[[Any], Any]:
    """Register a function as a check."""

    def register(function: Callable[[Bench], dict[str, Any]]) -> Any:
        assert name not in CHECKS, name
        CHECKS[name] = Check(name, lane, limit, function)
        return function

    return register


@dataclass
class Cases:
    """The cases of one check: each is tried, whatever became of those before.

    A device that cannot even be waited for after a failure is lost to the process; then the failure
    is passed on and the process has to be started anew.
    """

    bench: Bench
    figures: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Try a case and record how it failed, if it did."""
        try:
            yield
            self.bench.wait()
            print(f"  {name}: {self.figures.get(name, 'good')}", flush=True)
        except SkipError as skip:
            self.figures[name] = f"skipped: {skip}"
        except Exception as error:
            print("".join(traceback.format_exception(error)), flush=True)
            self.failures[name] = f"{type(error).__name__}: {error}"[:600]
            self.bench.wait()

    def result(self) -> dict[str, Any]:
        """Return the figures.

        Raises:
            CasesError: at least one case failed.
        """
        if self.failures:
            told = "; ".join(f"[{name}] {reason}" for name, reason in self.failures.items())
            raise CasesError(told, self.figures)
        return self.figures


def distance(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖ in float64; NaN where anything is not finite."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    if not torch.isfinite(found).all():
        return float("nan")
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def near(what: str, found: Tensor, expected: Tensor, tolerance: float) -> float:
    """Return the distance, which must be within the tolerance.

    Raises:
        AssertionError: it is not.
    """
    far = distance(found, expected)
    if not far <= tolerance:
        raise AssertionError(f"{what} is off by {far:.2e}, allowed {tolerance:.0e}")
    return far
