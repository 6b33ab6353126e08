"""What works on vectors one by one: norms, embeddings, positions, additive embeddings."""

from functools import singledispatch
from typing import NamedTuple

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, LoweringError, Operation
from coterie.generate.native.kernels.embed import GATHER, HASH, Gather, Hash
from coterie.generate.native.kernels.heads import HALF, INTERLEAVED
from coterie.generate.native.kernels.tags import COUNT, INSIDE, NAME, STATE, TAGS, Tags
from coterie.generate.native.kernels.vectors import LAYER, NO_NORM, NORMALISE, RMS, Normalise
from coterie.generate.native.lower.matrices import multiplied, table_of
from coterie.model.additive import StructurePart, powers
from coterie.model.embedding import (
    FactorisedEmbeddingPart,
    FullEmbeddingPart,
    NgramEmbeddingPart,
    mixer,
)
from coterie.model.norm import LayerNormPart, RMSNormPart
from coterie.model.position import PositionPart
from coterie.model.position.interface import LearnedPositionPart
from coterie.model.position.rotary import RotaryPositionPart


class NormPlan(NamedTuple):
    """A norm as kernels know it."""

    kind: int
    gain: int
    bias: int
    epsilon: float


PLAIN = NormPlan(NO_NORM, 0, 0, 0.0)
"""What is not normalised."""


@singledispatch
def norm_of(part: nn.Module, builder: Builder) -> NormPlan:
    """Return a norm as kernels know it.

    Raises:
        LoweringError: they do not.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@norm_of.register
def _rms(part: RMSNormPart, builder: Builder) -> NormPlan:
    return NormPlan(RMS, builder.vector(part.weight), 0, part.epsilon)


@norm_of.register
def _layer(part: LayerNormPart, builder: Builder) -> NormPlan:
    return NormPlan(LAYER, builder.vector(part.weight), builder.vector(part.bias), part.epsilon)


def normalised(builder: Builder, part: nn.Module, source: Buffer) -> Buffer:
    """Add a stage that normalises; return where its result will be."""
    plan, out = norm_of(part, builder), builder.buffer(source.width)
    fields = Normalise(
        plan.kind, plan.gain, plan.bias, source.width, source.address, source.width,
        out.address, out.width,
    )  # fmt: skip
    builder.stage(builder.operation(NORMALISE, fields, 1, builder.count.data_ptr(), plan.epsilon))
    return out


@singledispatch
def embedded(part: nn.Module, builder: Builder) -> Buffer:
    """Add the look-up of the tokens; return where the stream will be.

    Raises:
        LoweringError: no kernel does it.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


def _looked_up(builder: Builder, table: nn.Parameter) -> Buffer:
    out = builder.buffer(table.shape[1])
    where = builder.tokens.data_ptr(), 1, *table_of(builder, table)
    fields = Gather(*where, out.width, out.address, out.width, 0)
    builder.stage(builder.operation(GATHER, fields, 1, builder.count.data_ptr()))
    return out


@embedded.register
def _full(part: FullEmbeddingPart, builder: Builder) -> Buffer:
    return _looked_up(builder, part.weight)


@embedded.register
def _factorised(part: FactorisedEmbeddingPart, builder: Builder) -> Buffer:
    return multiplied(builder, part.projection, _looked_up(builder, part.weight))


@embedded.register
def _ngram(part: NgramEmbeddingPart, builder: Builder) -> Buffer:
    stream, sizes = _looked_up(builder, part.weight), part.settings
    channels, number = part.table.shape[1], len(sizes.orders)
    joins = part.projection is not None
    out = builder.buffer(channels * number) if joins else stream
    assert builder.past is not None
    fields = Hash(
        builder.past.data_ptr(), builder.past.shape[1],
        builder.words(sizes.orders), builder.words([mixer(order) for order in sizes.orders]),
        number, sizes.rows, *table_of(builder, part.table), channels, out.address, out.width, joins,
    )  # fmt: skip
    builder.stage(builder.operation(HASH, fields, 1, builder.count.data_ptr()))
    if part.projection is None:
        return stream
    return multiplied(builder, part.projection, out, residual=stream)


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


_FOLLOWED = {"inside": INSIDE, "count": COUNT, "name": NAME}


@singledispatch
def joined(part: nn.Module, builder: Builder, name: str, stream: Buffer) -> Operation:
    """Return what adds an embedding to the stream.

    Args:
        name: under which a cache carries what the embedding knows of the past.
        stream: what it is added to.

    Raises:
        LoweringError: no kernel does.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@joined.register
def _structure(part: StructurePart, builder: Builder, name: str, stream: Buffer) -> Operation:
    tags, first = [], 0
    for kind, (opening, closing) in zip(part.kinds, part.ids, strict=True):
        if opening is None or closing is None:
            raise LoweringError("the tokens of its structure tags are not known")
        tags += [opening, closing, _FOLLOWED[kind.follow], kind.bound, first]
        first += kind.states
    known, factors = builder.carried(name, len(part.kinds), STATE), powers()
    fields = Tags(
        builder.count.data_ptr(), builder.tokens.data_ptr(), builder.rows.data_ptr(),
        known.data_ptr(), len(part.kinds), builder.words(tags), builder.words(factors),
        len(factors), *table_of(builder, part.weight), stream.width, stream.address, stream.width,
    )  # fmt: skip
    return builder.operation(TAGS, fields)
