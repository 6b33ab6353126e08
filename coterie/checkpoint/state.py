"""The state of a training run besides tensors and settings, validated."""

import base64
import binascii
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from coterie.checkpoint.layout import FORMAT, STATE
from coterie.checkpoint.manifest import Digest, Step, StrictRecord
from coterie.foundation.errors import CheckpointError
from coterie.foundation.records import read_model, validated

_CUDA_BYTES = 16  # seed and offset of a Philox generator


Word = Annotated[int, Field(ge=0, lt=2**32)]
_Count = Annotated[int, Field(ge=0)]
_Loose = Field(strict=False)  # JSON has lists alone


class RandomStates(StrictRecord):
    """The states of the generators of Python, NumPy and torch, as each of them accepts it.

    NumPy reads outside its memory where the position is outside of 0 … 624.
    """

    python: Annotated[tuple[Literal[3], list[Word], float | None], _Loose]
    numpy: Annotated[
        tuple[
            Literal["MT19937"],
            Annotated[list[Word], Field(min_length=624, max_length=624)],
            Annotated[int, Field(ge=0, le=624)],
            Literal[0, 1],
            float,
        ],
        _Loose,
    ]
    torch: str
    cuda: list[str] = []

    @model_validator(mode="after")
    def _accepted(self) -> Self:
        try:
            version, numbers, gauss = self.python
            random.Random().setstate((version, tuple(numbers), gauss))
            torch.Generator().set_state(decode_state(self.torch))
            sizes = {len(decode_state(each)) for each in self.cuda}
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"no generator accepts this state: {error}") from error
        if sizes - {_CUDA_BYTES}:
            raise ValueError("no GPU's generator has a state of this size")
        return self


class LossScaleState(StrictRecord):
    """float16's loss scale, and the steps since it last changed."""

    scale: float = Field(gt=0)
    good_steps: int = Field(ge=0)


class ChoicesState(StrictRecord):
    """What a run chose by measuring, on which kind of device; a resumed one goes on with it."""

    device: str
    precision: Literal["float32", "bfloat16", "float16"]
    compile: bool
    pieces: int | None = Field(default=None, ge=1)  # micro-batches of a step


class StreamState(StrictRecord):
    """Where a stream of text is read: the block of rows that the next step begins in.

    Attributes:
        row, block, epoch: its first row and its number, and in which epoch it lies, from 0.
        place: input, row group and document at which it begins.
        digest: SHA-256 of its tokens; "" if it was not read yet.
        files: each input's name, bytes and the SHA-256 of samples.
    """

    row: int = Field(ge=0)
    block: int = Field(ge=0)
    epoch: int = Field(ge=0)
    place: Annotated[tuple[_Count, _Count, _Count], _Loose]
    digest: Digest | Literal[""]
    files: Annotated[list[Annotated[tuple[str, _Count, Digest], _Loose]], _Loose]


class State(StrictRecord):
    """How far a training has come, and all that decides how it goes on.

    Attributes:
        step, tokens, train_seconds: done so far.
        loss: of the latest step; validation_loss: of an evaluation at this very step.
        best_loss, stale, plateaus: the validation loss that the next ones must better, the
            evaluations since, and how often the learning rate was lowered for them.
        data: fingerprint of the store that was trained on; None: none was.
        random: of every generator; several processes draw alike.
        clip: gradient norms that an adaptive clipper remembers.
        loss_scale: where the precision has one.
        choices: what was measured and chosen; None in checkpoints of earlier versions.
        stream: where it is read, if the text is a stream.
    """

    format: Literal[1, 2, 3] = 1
    step: Step
    tokens: int = Field(ge=0, le=2**62)
    train_seconds: float = Field(ge=0)
    loss: float | None
    validation_loss: float | None
    best_loss: float | None = None
    stale: int = Field(default=0, ge=0)
    plateaus: int = Field(default=0, ge=0)
    data: Digest | None
    random: RandomStates
    clip: list[Annotated[float, Field(ge=0)]]
    loss_scale: LossScaleState | None
    choices: ChoicesState | None = None
    stream: StreamState | None = None


def complete_state(state: Mapping[str, Any], step: int, version: int = FORMAT) -> State:
    """Return the state to write: what is not given is as before the first step.

    A loss that is not finite says no more than none, and JSON cannot hold it.

    Raises:
        CheckpointError: a value is of no use.
    """
    blank = {
        "tokens": 0, "train_seconds": 0.0, "loss": None, "validation_loss": None, "data": None,
        "clip": [], "loss_scale": None,
    }  # fmt: skip
    value = {**blank, **state, "step": step, "format": version}
    for name in ("loss", "validation_loss", "best_loss"):
        if value.get(name) is not None and not math.isfinite(value[name]):
            value[name] = None
    return validated(State, value, STATE, CheckpointError)


def read_state(folder: Path) -> State:
    """Read a checkpoint's state.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return read_model(State, folder / STATE, CheckpointError)
    except FileNotFoundError as error:
        raise CheckpointError(f"{STATE} is missing") from error


def encode_state(state: torch.Tensor) -> str:
    """Return the bytes of a generator's state as text."""
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def decode_state(text: str) -> torch.Tensor:
    """Return a generator's state from text.

    Raises:
        ValueError: it is no such text.
    """
    try:
        content = bytearray(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    return torch.frombuffer(content, dtype=torch.uint8)
