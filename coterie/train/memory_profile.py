"""Where the memory of a training step goes, every so many steps: the allocations by part.

A step is watched operator by operator (`train/live_memory.py`) and stays the same, bit for bit. On
a GPU torch also records what its allocator did, for the viewer at https://pytorch.org/memory_viz.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from coterie.batch import TokenBatch
from coterie.foundation.allocator import resident_bytes
from coterie.foundation.errors import RunError, UserError
from coterie.train.events import MemoryPart, MemoryProfiled
from coterie.train.live_memory import BACKWARD, FORWARD, UPDATE, LiveMemory
from coterie.train.look import Look, StepLook
from coterie.train.monitor.publish import Publisher
from coterie.train.session import Session

EVERY = 100
_FIRST = 2  # the first step that is told: the one before makes the optimizer's state
_ENTRIES = 1_000_000  # of the allocator's record of one step


def memory_profile(every: int | None = None) -> Look:
    """Return what tells the memory of every so many steps.

    Args:
        every: steps; None: 100, or as many as the run has left where that is fewer.

    Raises:
        UserError: no step is told like that.
    """
    if every is not None and every < 1:
        raise UserError(
            f"The interval between two reports is at least one step, and {every} was asked for.",
            hint=f"For example: --report-interval {EVERY}",
        )
    return functools.partial(MemoryProfile, every=every)


class MemoryProfile(StepLook):
    """Tells the memory of the second step of a session and of all that `every` divides.

    Raises:
        RunError: the run ends before, or is compiled.
    """

    def __init__(self, session: Session, publish: Publisher, every: int | None = None) -> None:
        super().__init__(session, publish)
        left = session.settings.train.steps - session.progress.step
        if left < (1 if every is None else every):
            raise RunError(
                f"Memory was to be reported every {every or EVERY:,} steps, and only {left:,} are "
                "left.",
                hint=f"Report more often (--report-interval {max(1, left // 10)}) or train for "
                f"longer: train.steps={session.progress.step + (every or EVERY)}",
            )
        if session.compiled:
            raise RunError(
                "What a compiled decoder allocates cannot be seen from outside.",
                hint="Look at the run as it is without: train.compile=false",
            )
        self._every = every or min(EVERY, left)
        self._first = session.progress.step + _FIRST
        self._live: LiveMemory | None = None
        # What is launched as one cannot be told apart.
        self._recorded, session.stepper.recorded = session.stepper.recorded, None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        number = self._session.progress.step + 1
        if number != self._first and number % self._every:
            yield
            return
        stepper, device = self._session.stepper, self._session.precision.device
        live = LiveMemory(device.type)
        with contextlib.ExitStack() as stack:
            stack.enter_context(live.watching(stepper))
            live.hold_all(tensors_of(stepper.optimizer, set()), "optimizer")
            live.allocated.clear()  # that was there before
            self._live = live
            stack.callback(setattr, self, "_live", None)
            written = stack.enter_context(self._history(device))
            yield
        self._publish(
            MemoryProfiled(
                step=number,
                parts=_parts(live),
                on_device=_on_gpu(device),
                process_bytes=_process_bytes(device),
                snapshot=next(iter(written), None),
            )
        )

    def read(self, batches: Iterator[TokenBatch]) -> Iterator[TokenBatch]:
        for batch in batches:
            if self._live is not None:
                for tensor in vars(batch).values():
                    if tensor is not None:
                        self._live.hold(tensor, "batches", again=True)
            yield batch

    def close(self) -> None:
        self._session.stepper.recorded = self._recorded

    @contextlib.contextmanager
    def _history(self, device: torch.device) -> Iterator[list[str]]:
        """Have torch write what a GPU's allocator does inside; the list names the file then."""
        written: list[str] = []
        if not _on_gpu(device):
            yield written
            return
        memory, path = torch.cuda.memory, self._session.run.profile / "memory.pickle"
        memory._record_memory_history(max_entries=_ENTRIES)
        try:
            yield written
            path.parent.mkdir(exist_ok=True)
            memory._dump_snapshot(str(path))
            written.append(str(path))
        except OSError as error:
            self._publish.notice(f"The snapshot could not be written: {error}", warning=True)
        finally:
            memory._record_memory_history(enabled=None)


def _on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _process_bytes(device: torch.device) -> int | None:
    if _on_gpu(device):
        return torch.cuda.memory_reserved(device)
    with contextlib.suppress(OSError):
        return resident_bytes()
    return None


def _parts(live: LiveMemory) -> tuple[MemoryPart, ...]:
    """Return every part that held or was given memory, the largest at the step's peak first."""
    phases = [live.peaks.get(phase, {}) for phase in (FORWARD, BACKWARD, UPDATE)]
    peak = live.peak
    names = {name for phase in phases for name in phase} | {
        n for n, b in live.allocated.items() if b
    }
    return tuple(
        MemoryPart(
            name=name, allocated=live.allocated.get(name, 0),
            forward=phases[0].get(name, 0), backward=phases[1].get(name, 0),
            update=phases[2].get(name, 0),
        )
        for name in sorted(names, key=lambda each: (-peak.get(each, 0), each))
    )  # fmt: skip


def tensors_of(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors that an optimizer holds on to, in whatever it keeps them."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    kept: Iterable[Any] = ()
    if isinstance(value, Mapping):
        kept = value.values()
    elif isinstance(value, list | tuple):
        kept = value
    elif isinstance(value, torch.optim.Optimizer) or type(value).__module__.startswith("coterie."):
        kept = getattr(value, "__dict__", {}).values()
    for each in kept:
        yield from tensors_of(each, seen)
