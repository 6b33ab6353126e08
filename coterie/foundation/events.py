"""What happens in a run, as typed records: the truth that every view reads.

The trainer appends one JSON line per event; displays, trackers and the report read events and never
the trainer. Counts are totals since the run began unless a field says otherwise.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from coterie.foundation.errors import RunError
from coterie.foundation.files import explain_disk_errors, open_append
from coterie.foundation.printable import printable

_LARGEST = 1e60  # far beyond what float32 can compute; sums and charts still have room above


def _sensible(value: float) -> float:
    """Return a number that computing can have led to: finite and not absurd, or not finite."""
    if math.isfinite(value) and abs(value) > _LARGEST:
        raise ValueError("no computation here leads to a number of this size")
    return value


Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, AfterValidator(_sensible)]


class Event(BaseModel):
    """Base of all records. `time` is in seconds since the epoch."""

    # A gradient norm may be infinite and must still be told; unknown fields of a newer version
    # are ignored so that an older report reads a newer run.
    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="strings", protected_namespaces=()
    )

    time: Number = Field(default_factory=time.time)


class RunStarted(Event):
    """A run began or, with `resumed_from`, went on from a checkpoint."""

    kind: Literal["run_started"] = "run_started"
    name: str
    preset: str
    parameters: Count
    active_parameters: Count
    steps: Count
    tokens_per_step: Count
    device: str
    precision: str
    machine: dict[str, str | Count | Number] = {}
    peak_flops: Number | None = None  # measured matrix-product rate, FLOP/s; MFU's ceiling
    resumed_from: Count | None = None
    training: str | None = None  # what all checkpoints of one training carry
    config_sha256: str | None = None  # of config.yaml as this start wrote it


class StepDone(Event):
    """One optimizer step. `seconds` is the step's own time, without evaluation and saving."""

    kind: Literal["step"] = "step"
    step: Count
    loss: Number  # mean nats per token, cross-entropy alone
    learning_rate: Number
    gradient_norm: Number  # before clipping
    tokens: Count
    seconds: Number
    tokens_per_second: Number
    mfu: Number | None = None  # fraction of `peak_flops`, active parameters only
    memory_bytes: Count | None = None
    auxiliary: dict[str, Number] = {}


class LayerLoad(BaseModel):
    """Tokens that chose each expert of one layer, how many found no room, the selection bias."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    layer: Count
    load: tuple[Count, ...]
    dropped: Count = 0
    bias: tuple[Number, ...] | None = None


class LoadMeasured(Event):
    """Load per expert and layer, summed over the latest `steps` steps."""

    kind: Literal["load"] = "load"
    step: Count
    steps: Count
    layers: tuple[LayerLoad, ...]


class Evaluated(Event):
    """Loss over a whole split. `characters` is how many characters the tokens stand for."""

    kind: Literal["evaluated"] = "evaluated"
    step: Count
    split: str
    loss: Number  # mean nats per token
    tokens: Count
    characters: Count | None = None
    seconds: Number

    @property
    def nats_per_character(self) -> float | None:
        """Return the loss per character, comparable between tokenizers."""
        return self.loss * self.tokens / self.characters if self.characters else None


class Sampled(Event):
    """Text that the model wrote."""

    kind: Literal["sampled"] = "sampled"
    step: Count
    prompt: str
    text: str


class CheckpointSaved(Event):
    """A checkpoint stands whole on the disk."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: Count
    path: str
    bytes: Count
    seconds: Number


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
    step: Count
    status: Literal["finished", "interrupted", "failed"]
    message: str = ""
    seconds: Number


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


class EventLog:
    """Appends events to a file, one JSON line each, handed to the system at once.

    A line that a crash tore is closed off when the log is opened again, so that it costs one record
    and not two.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = open_append(self.path, RunError)

    def append(self, event: Event) -> None:
        """Write one event.

        Raises:
            UserError: the disk is full.
        """
        with explain_disk_errors(str(self.path), whole=False):
            self._file.write(event.model_dump_json(exclude_none=True) + "\n")
            self._file.flush()

    __call__ = append

    def is_in_place(self) -> bool:
        """Whether the file that is written to still stands at its path."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def move(self, path: Path | str) -> None:
        """Go on at another path; where there is nothing yet, all that was written goes along.

        Raises:
            UserError: the disk is full or not writable.
        """
        path = Path(path)
        with explain_disk_errors(str(path)):
            earlier = ""
            if not path.exists():
                self._file.seek(0)
                earlier = self._file.read()
            file = open_append(path, RunError)
            file.write(earlier)
            file.flush()
        self._file.close()
        self.path, self._file = path, file

    def close(self) -> None:
        """Close the file; the log can be opened again later."""
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class SkippedLine:
    """A line of a record that could not be read: its number, from 1, and what is wrong with it."""

    number: int
    reason: str


@dataclass(frozen=True)
class Record:
    """What a run's events file tells, and the lines of it that tell nothing."""

    path: Path
    events: list[Any]
    skipped: tuple[SkippedLine, ...]

    def complaints(self, most: int = 3) -> list[str]:
        """Return a sentence on each skipped line, the first few of them."""
        told = [
            f"{self.path}: line {line.number:,} was passed over: {line.reason}."
            for line in self.skipped[:most]
        ]
        if (left := len(self.skipped) - most) > 0:
            told.append(f"{self.path}: {left:,} more line{'s' * (left > 1)} were passed over.")
        return told


def read_record(path: Path | str) -> Record:
    """Read a run's events in order, and which lines cannot be read.

    Torn and damaged lines and kinds unknown to this version are skipped. Where the run was resumed
    from step s, earlier records beyond s are dropped: those steps were done again.

    Raises:
        RunError: there is no such file, or it cannot be read at all.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path} does not exist: the run has recorded nothing yet.")
    if not path.is_file():
        raise RunError(f"{path} is not a regular file, so it is no record of a run.")
    events: list[Any] = []
    skipped: list[SkippedLine] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                try:
                    event = _ADAPTER.validate_json(line)
                except ValidationError as error:
                    skipped.append(SkippedLine(number, _reason(error)))
                    continue
                if isinstance(event, RunStarted) and event.resumed_from is not None:
                    start = event.resumed_from
                    events = [old for old in events if getattr(old, "step", 0) <= start]
                events.append(event)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    return Record(path, events, tuple(skipped))


def read_events(path: Path | str) -> list[Any]:
    """Read a run's events in order, without a word on what was skipped; see `read_record`.

    Raises:
        RunError: there is no such file, or it cannot be read at all.
    """
    return read_record(path).events


def _reason(error: ValidationError) -> str:
    """Return what is wrong with a line, in a few words."""
    first = error.errors(include_url=False)[0]
    about = first.get("ctx", {})
    if first["type"] == "json_invalid":
        return printable(f"it is not JSON ({about.get('error')})", keep="")
    if first["type"] == "union_tag_invalid":
        return printable(f"its kind “{about.get('tag')}” is not known here", keep="")
    where = ".".join(map(str, first["loc"][1:])) or "the whole"  # the kind stands first
    message = first["msg"].removeprefix("Value error, ")
    return printable(f"{where}: {message[:1].lower() + message[1:]}", keep="")
