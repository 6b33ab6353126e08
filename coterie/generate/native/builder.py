"""Building a program: memory for what passes between operations, and tables of what to do.

What is computed together is a stage; stages follow each other. Buffers are written once in a step,
so no operation ever waits for a reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coterie.foundation.errors import CoterieError
from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.heads import CACHE_WORDS
from coterie.generate.native.operations import FIELDS, HEADER, NUMBERS
from coterie.model.position import PositionPart
from coterie.model.position.rotary import RotaryPositionPart
from coterie.quantise import QuantisedTensor

TASK_BYTES = 128 << 10
"""About how much of the weights one task reads: small beside a stage, large beside a ticket."""


class LoweringError(CoterieError):
    """The native program cannot compute this model; the message says what of it."""


class Buffer(NamedTuple):
    """One vector for each entry of a step: its first address and its size in elements."""

    address: int
    width: int


class Matrix(NamedTuple):
    """A matrix as kernels read it; a scale of 0 is none."""

    rows: int
    weight: int
    scale: int
    bias: int
    outer: int
    inner: int
    row_bytes: int

    @property
    def words(self) -> tuple[int, int, int, int]:
        """The function of its rows, weight, scale and bias."""
        return self.rows, self.weight, self.scale, self.bias

    def chunk(self, share: int = 1) -> int:
        """Return how many rows make a task, where a task reads so many matrices."""
        rows = TASK_BYTES // max(self.row_bytes * share, 1)
        return max(min(rows, -(-self.outer // 2)), 1)


class Operation(NamedTuple):
    """One row of the tables."""

    kernel: int
    tasks: int
    repeat: int
    fields: tuple[int, ...]
    numbers: tuple[float, ...]


@dataclass
class Builder:
    """A program in the making.

    Attributes:
        entries: the most tokens of one step.
        threads: that will walk it, at most.
        layers: attention layers, for the table of caches.
        hidden: where the stream after the last block will be.
    """

    entries: int
    threads: int
    layers: int
    kept: list[Tensor] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    stages: list[tuple[int, int]] = field(default_factory=list)
    turns: dict[int, Tensor] = field(default_factory=dict)
    states: dict[str, Tensor] = field(default_factory=dict)
    past: Tensor | None = None
    padding: int = 0
    hidden: Buffer | None = None

    def __post_init__(self) -> None:
        self.count = self.room(1, dtype=torch.int64)
        self.tokens = self.room(self.entries, dtype=torch.int64)
        self.positions = self.room(self.entries, dtype=torch.int64)
        self.rows = self.room(self.entries, dtype=torch.int64)
        self.caches = self.room(self.layers, CACHE_WORDS, dtype=torch.int64)

    def room(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return memory that the program keeps."""
        made = torch.zeros(shape, dtype=dtype)
        self.kept.append(made)
        return made

    def buffer(self, width: int) -> Buffer:
        """Return room for one vector of each entry."""
        return Buffer(self.room(self.entries, width).data_ptr(), width)

    def words(self, values: Sequence[int]) -> int:
        made = torch.tensor(list(values), dtype=torch.int64)
        self.kept.append(made)
        return made.data_ptr()

    def vector(self, values: Tensor | None) -> int:
        """Return the address of a float32 vector that may change in place; 0 where there is none.

        Raises:
            LoweringError: it is of another type.
        """
        if values is None:
            return 0
        if isinstance(values, QuantisedTensor):
            raise LoweringError(f"its parameters are {values.kind}")
        if values.dtype != torch.float32 or not values.is_contiguous():
            raise LoweringError(f"its parameters are {str(values.dtype).removeprefix('torch.')}")
        self.sources.append(values)
        return values.data_ptr()

    def copy(self, values: Tensor) -> Tensor:
        """Return a contiguous copy, brought up to date by `Program.refresh`."""
        copied = values.detach().clone(memory_format=torch.contiguous_format)
        self.copies.append((values, copied))
        self.kept.append(copied)
        return copied

    def carried(self, name: str, *shape: int) -> Tensor:
        """Return room for what a part knows of each row's past, handed on under a name."""
        self.states[name] = self.room(self.entries, *shape, dtype=torch.int64)
        return self.states[name]

    def history(self, lookback: int, padding: int) -> Tensor:
        """Return room for the tokens that end with each entry, oldest first."""
        self.past = self.room(self.entries, lookback + 1, dtype=torch.int64)
        self.padding = padding
        return self.past

    def angles(self, part: RotaryPositionPart, rotated: int) -> int:
        """Return where the addresses of cosines and sines will stand; `Program` fills them in."""
        if rotated not in self.turns:
            self.turns[rotated] = self.room(2, dtype=torch.int64)
        return self.turns[rotated].data_ptr()

    def stage(self, *operations: Operation) -> None:
        """Add operations that are computed together."""
        first = len(self.operations)
        self.operations += operations
        self.stages.append((first, len(self.operations)))

    @staticmethod
    def operation(
        kernel: Kernel, fields: tuple[int, ...], tasks: int = 1, repeat: int = 0, *numbers: float
    ) -> Operation:
        """Return an operation of `tasks` tasks, repeated as often as the number at an address."""
        return Operation(kernel.address, tasks, repeat, fields, numbers)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return operations, their numbers, and stages."""
        operations = torch.zeros(len(self.operations), HEADER + FIELDS, dtype=torch.int64)
        numbers = torch.zeros(len(self.operations), NUMBERS, dtype=torch.float64)
        for row, each in enumerate(self.operations):
            words: list[Any] = [each.kernel, each.tasks, each.repeat, *each.fields]
            operations[row, : len(words)] = torch.tensor(words)
            if each.numbers:
                numbers[row, : len(each.numbers)] = torch.tensor(each.numbers, dtype=torch.float64)
        return operations, numbers, torch.tensor(self.stages, dtype=torch.int64)


class Layer(NamedTuple):
    """An attention layer to add: to what program, with which positions, and its number."""

    builder: Builder
    position: PositionPart
    number: int

    @property
    def where(self) -> tuple[int, int, int]:
        """Where the entries' positions and rows stand, and the layer's caches."""
        builder = self.builder
        caches = builder.caches[self.number]
        return builder.positions.data_ptr(), builder.rows.data_ptr(), caches.data_ptr()
