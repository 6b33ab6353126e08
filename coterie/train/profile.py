"""Where the time of a training step goes: a trace, and the operations' times by part of the model.

Parts are marked while steps are recorded (`train/parts.py`). An operation belongs to the innermost
mark around it; one of the backward pass to the part whose forward pass made its node, which the
sequence numbers of autograd tell. On a CPU a part's time includes Python between operations; on a
GPU it is the device's own.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from coterie.batch import TokenBatch
from coterie.foundation.errors import RunError
from coterie.train.events import ProfiledOperation, ProfiledPart, StepsProfiled
from coterie.train.look import StepLook
from coterie.train.monitor.publish import Publisher
from coterie.train.parts import marked, marks
from coterie.train.session import Session

WARM_UP = 3
RECORDED = 5
_STEP = "coterie: step"
_MARK = "coterie part: "
_BACKWARD = "autograd::engine::evaluate_function: "
_MOST = 20  # operations that are told


class StepProfile(StepLook):
    """Records a few steps of a session after its first ones.

    Raises:
        RunError: the run ends before.
    """

    def __init__(self, session: Session, publish: Publisher) -> None:
        super().__init__(session, publish)
        steps, done = session.settings.train.steps, session.progress.step
        if steps - done < WARM_UP + RECORDED:
            raise RunError(
                f"A profile takes {WARM_UP + RECORDED} steps ({WARM_UP} to warm up, {RECORDED} "
                f"recorded), and only {steps - done} are left.",
                hint=f"Train for longer: train.steps={done + WARM_UP + RECORDED}",
            )
        self._taken = 0
        self._seconds = 0.0
        self._open = contextlib.ExitStack()
        # What is launched as one cannot be told apart.
        self._open.callback(setattr, session.stepper, "recorded", session.stepper.recorded)
        session.stepper.recorded = None
        self._record: profile | None = None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        self._taken += 1
        if not WARM_UP < self._taken <= WARM_UP + RECORDED:
            yield
            return
        if self._record is None:
            self._record = self._begin()
        begin = time.perf_counter()
        with record_function(_STEP):
            yield
        self._seconds += time.perf_counter() - begin
        if self._taken == WARM_UP + RECORDED:
            self.close()
            self._tell(self._record)

    def read(self, batches: Iterator[TokenBatch]) -> Iterator[TokenBatch]:
        """Yield batches, the wait for each marked as a part of its own."""
        while True:
            with record_function(_MARK + "data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Record no further and take the marks away; a run that ends early comes here too."""
        self._open.close()

    def _begin(self) -> profile:
        activities = [ProfilerActivity.CPU]
        if self._session.precision.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        for subject, method, part in marks(self._session.stepper, compiled=self._session.compiled):
            self._open.enter_context(marked(subject, method, part, _record))
        return self._open.enter_context(profile(activities=activities, acc_events=True))

    def _tell(self, record: profile) -> None:
        folder = self._session.run.profile
        trace = folder / "trace.json.gz"
        try:
            folder.mkdir(exist_ok=True)
            record.export_chrome_trace(str(trace))
        except OSError as error:
            self._publish.notice(f"The trace could not be written: {error}", warning=True)
        on_device = self._session.precision.device.type == "cuda"
        spent = attribute(record.events() or (), on_device=on_device)
        parts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for (part, backward, _), (_, seconds) in spent.items():
            parts[part][backward] += seconds / RECORDED
        self._publish(
            StepsProfiled(
                step=self._session.progress.step + 1,
                steps=RECORDED,
                seconds=self._seconds / RECORDED,
                on_device=on_device,
                trace=str(trace),
                parts=tuple(
                    ProfiledPart(name=name, forward=forward, backward=backward)
                    for name, (forward, backward) in sorted(
                        parts.items(), key=lambda each: -sum(each[1])
                    )
                ),
                operations=tuple(
                    ProfiledOperation(
                        part=part, name=name, backward=backward,
                        calls=calls / RECORDED, seconds=seconds / RECORDED,
                    )
                    for (part, backward, name), (calls, seconds) in sorted(
                        spent.items(), key=lambda each: -each[1][1]
                    )[:_MOST]
                ),
            )
        )  # fmt: skip


def _record(part: str) -> record_function:
    return record_function(_MARK + part)


class _Place(NamedTuple):
    part: str
    backward: bool


def attribute(
    events: Iterable[Any], *, on_device: bool
) -> dict[tuple[str, bool, str], tuple[int, float]]:
    """Return calls and seconds by part, whether in the backward pass, and name of the operation.

    Args:
        events: what the profiler saw, `torch.autograd.profiler_util.FunctionEvent`.
        on_device: count the device's time instead of the processor's.
    """
    known = [each for each in events if each.device_type == DeviceType.CPU]
    known.sort(key=lambda each: each.time_range.start)
    steps = [each.time_range for each in known if each.name == _STEP]
    makers: dict[int, Any] = {}  # by sequence number, the operation that made the node
    for event in known:
        if event.sequence_nr >= 0 and not _is_node(event):
            makers[event.sequence_nr] = event  # the last one with a number is the one that used it

    def place_of(event: Any) -> _Place:
        node = event
        while node is not None:
            if node.name.startswith(_MARK):
                return _Place(node.name.removeprefix(_MARK), _is_backward(node))
            if node.name.startswith(_BACKWARD):
                if "AccumulateGrad" in node.name:
                    return _Place("adding up gradients", True)
                maker = makers.get(node.sequence_nr)
                return _Place("rest" if maker is None else place_of(maker).part, True)
            node = node.cpu_parent
        return _Place("rest", False)

    found: dict[tuple[str, bool, str], tuple[int, float]] = {}
    for event in known:
        at = event.time_range.start
        if not any(step.start <= at <= step.end for step in steps):
            continue
        micro = event.self_device_time_total if on_device else event.self_cpu_time_total
        if not micro:
            continue
        part, backward = place_of(event)
        key = (part, backward, _name_of(event.name))
        calls, seconds = found.get(key, (0, 0.0))
        found[key] = calls + 1, seconds + micro / 1e6
    return found


def _is_node(event: Any) -> bool:
    """Whether an event is a node of the backward pass, or what the node calls under its number."""
    parent = event.cpu_parent
    named = event.name.startswith(_BACKWARD)
    return named or (parent is not None and parent.sequence_nr == event.sequence_nr
                     and _is_node(parent))  # fmt: skip


def _is_backward(event: Any) -> bool:
    """Whether an event happened within a node of the backward pass, which recomputes."""
    while event is not None:
        if event.name.startswith(_BACKWARD):
            return True
        event = event.cpu_parent
    return False


def _name_of(name: str) -> str:
    if name == _STEP or name.startswith(_MARK):
        return "Python"
    return "autograd" if name.startswith(_BACKWARD) else name
