"""From token ids to the stream."""

from functools import singledispatch

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, LoweringError
from coterie.generate.native.kernels.embed import GATHER, HASH, Gather, Hash
from coterie.generate.native.lower.matrices import multiplied, table_of
from coterie.model.embedding import (
    FactorisedEmbeddingPart,
    FullEmbeddingPart,
    NgramEmbeddingPart,
    mixer,
)


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
