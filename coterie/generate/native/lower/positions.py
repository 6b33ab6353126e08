"""Positions: vectors that are added, and tables of angles."""

from functools import singledispatch
from typing import NamedTuple

from coterie.generate.native.builder import Buffer, Builder, LoweringError, Operation
from coterie.generate.native.kernels.embed import GATHER, Gather
from coterie.generate.native.kernels.heads import HALF, INTERLEAVED
from coterie.generate.native.lower.matrices import table_of
from coterie.model.position import PositionPart
from coterie.model.position.learned import LearnedPositionPart
from coterie.model.position.rotary import RotaryPositionPart

_LAYOUTS = {"half": HALF, "interleaved": INTERLEAVED}


class Turn(NamedTuple):
    """How heads are rotated; without tables they are not."""

    tables: int = 0
    rotated: int = 0
    layout: int = 0
    logit_scale: float = 1.0


@singledispatch
def turn_of(part: PositionPart, builder: Builder, channels: int) -> Turn:
    """Return how heads of so many channels are rotated."""
    return Turn()


@turn_of.register
def _rotary(part: RotaryPositionPart, builder: Builder, channels: int) -> Turn:
    rotated = part.settings.rotated(channels)
    return Turn(
        builder.angles(part, rotated), rotated, _LAYOUTS[part.settings.layout],
        part.settings.scaling.logit_scale,
    )  # fmt: skip


@singledispatch
def added(part: PositionPart, builder: Builder, stream: Buffer) -> tuple[Operation, ...]:
    """Return what adds the positions' vectors to the stream.

    Raises:
        LoweringError: no kernel does.
    """
    if type(part) not in (PositionPart, RotaryPositionPart):
        raise LoweringError(f"no kernel for {type(part).__name__}")
    return ()


@added.register
def _learned(part: LearnedPositionPart, builder: Builder, stream: Buffer) -> tuple[Operation, ...]:
    fields = Gather(
        builder.positions.data_ptr(), 1, *table_of(builder, part.weight), stream.width,
        stream.address, stream.width, 1,
    )  # fmt: skip
    return (builder.operation(GATHER, fields, 1, builder.count.data_ptr()),)
