"""What happens in a run, as typed records: the truth that every view reads.

The trainer appends one JSON line per event; displays, trackers and the report read events and never
the trainer. Counts are totals since the run began unless a field says otherwise.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from coterie.foundation.errors import RunError
from coterie.foundation.files import explain_disk_errors


class Event(BaseModel):
    """Base of all records. `time` is in seconds since the epoch."""

    # A gradient norm may be infinite and must still be told; unknown fields of a newer version
    # are ignored so that an older report reads a newer run.
    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="strings", protected_namespaces=()
    )

    time: float = Field(default_factory=time.time)


class RunStarted(Event):
    """A run began or, with `resumed_from`, went on from a checkpoint."""

    kind: Literal["run_started"] = "run_started"
    name: str
    preset: str
    parameters: int
    active_parameters: int
    steps: int
    tokens_per_step: int
    device: str
    precision: str
    machine: dict[str, str | int | float] = {}
    peak_flops: float | None = None  # measured matrix-product rate, FLOP/s; MFU's ceiling
    resumed_from: int | None = None


class StepDone(Event):
    """One optimizer step. `seconds` is the step's own time, without evaluation and saving."""

    kind: Literal["step"] = "step"
    step: int
    loss: float  # mean nats per token, cross-entropy alone
    learning_rate: float
    gradient_norm: float  # before clipping
    tokens: int
    seconds: float
    tokens_per_second: float
    mfu: float | None = None  # fraction of `peak_flops`, active parameters only
    memory_bytes: int | None = None
    auxiliary: dict[str, float] = {}


class LayerLoad(BaseModel):
    """Tokens that chose each expert of one layer, how many found no room, the selection bias."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    layer: int
    load: tuple[int, ...]
    dropped: int = 0
    bias: tuple[float, ...] | None = None


class LoadMeasured(Event):
    """Load per expert and layer, summed over the latest `steps` steps."""

    kind: Literal["load"] = "load"
    step: int
    steps: int
    layers: tuple[LayerLoad, ...]


class Evaluated(Event):
    """Loss over a whole split. `characters` is how many characters the tokens stand for."""

    kind: Literal["evaluated"] = "evaluated"
    step: int
    split: str
    loss: float  # mean nats per token
    tokens: int
    characters: int | None = None
    seconds: float

    @property
    def nats_per_character(self) -> float | None:
        """Return the loss per character, comparable between tokenizers."""
        return self.loss * self.tokens / self.characters if self.characters else None


class Sampled(Event):
    """Text that the model wrote."""

    kind: Literal["sampled"] = "sampled"
    step: int
    prompt: str
    text: str


class CheckpointSaved(Event):
    """A checkpoint stands whole on the disk."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: int
    path: str
    bytes: int
    seconds: float


class CheckpointDamaged(Event):
    """A checkpoint was found damaged and passed over."""

    kind: Literal["checkpoint_damaged"] = "checkpoint_damaged"
    path: str
    problem: str


class Notice(Event):
    """Something the reader should know."""

    kind: Literal["notice"] = "notice"
    level: Literal["info", "warning"] = "info"
    message: str


class RunEnded(Event):
    """The run ended; `seconds` is the wall-clock time since it began or was resumed."""

    kind: Literal["run_ended"] = "run_ended"
    step: int
    status: Literal["finished", "interrupted", "failed"]
    message: str = ""
    seconds: float


AnyEvent = Annotated[
    RunStarted
    | StepDone
    | LoadMeasured
    | Evaluated
    | Sampled
    | CheckpointSaved
    | CheckpointDamaged
    | Notice
    | RunEnded,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEvent)
KINDS = frozenset(
    {"run_started", "step", "load", "evaluated", "sampled", "checkpoint_saved",
     "checkpoint_damaged", "notice", "run_ended"}
)  # fmt: skip


class EventLog:
    """Appends events to a file, one JSON line each, handed to the system at once.

    A line that a crash tore is closed off when the log is opened again, so that it costs one record
    and not two.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with explain_disk_errors(str(self.path)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = self.path.exists() and not _ends_with_newline(self.path)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - kept open
            if torn:
                self._file.write("\n")

    def append(self, event: Event) -> None:
        """Write one event.

        Raises:
            UserError: the disk is full.
        """
        with explain_disk_errors(str(self.path)):
            self._file.write(event.model_dump_json(exclude_none=True) + "\n")
            self._file.flush()

    __call__ = append

    def close(self) -> None:
        """Close the file; the log can be opened again later."""
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_events(path: Path | str) -> list[Any]:
    """Read a run's events in order.

    Torn lines and kinds unknown to this version are skipped. Where the run was resumed from step s,
    earlier records beyond s are dropped: those steps were done again, and the later ones count.

    Raises:
        RunError: there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path} does not exist: the run has recorded nothing yet.")
    events: list[Any] = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            event = _parse(line)
            if event is None:
                continue
            if isinstance(event, RunStarted) and event.resumed_from is not None:
                start = event.resumed_from
                events = [old for old in events if getattr(old, "step", 0) <= start]
            events.append(event)
    return events


def _parse(line: str) -> Any | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        return None
    return _ADAPTER.validate_python(record)
