"""Additive embeddings."""

from functools import singledispatch

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, LoweringError, Operation
from coterie.generate.native.kernels.tags import COUNT, INSIDE, NAME, STATE, TAGS, Tags
from coterie.generate.native.lower.matrices import table_of
from coterie.model.additive import StructurePart, powers

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
