"""Attention."""

from __future__ import annotations

from functools import singledispatch

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, LoweringError
from coterie.generate.native.kernels.attend import ATTEND, BLOCK, Attend
from coterie.generate.native.kernels.heads import HEADS, Heads
from coterie.generate.native.kernels.norm import NO_NORM
from coterie.generate.native.lower.matrices import matrix_of, product_of
from coterie.generate.native.lower.norms import NormPlan, norm_of
from coterie.generate.native.lower.positions import turn_of
from coterie.model.attention.grouped import GroupedAttentionPart
from coterie.model.position import PositionPart

_NONE = NormPlan(NO_NORM, 0, 0, 0.0)


@singledispatch
def attended(
    part: nn.Module,
    builder: Builder,
    position: PositionPart,
    layer: int,
    source: Buffer,
    residual: Buffer | None,
) -> Buffer:
    """Add an attention layer; return where residual + attention(source) will be.

    Raises:
        LoweringError: it has something that no kernel computes.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@attended.register
def _grouped(
    part: GroupedAttentionPart,
    builder: Builder,
    position: PositionPart,
    layer: int,
    source: Buffer,
    residual: Buffer | None,
) -> Buffer:
    if part.mask.sparse is not None:
        raise LoweringError(f"no kernel for attention.sparse={part.mask.sparse.kind}")
    channels = part.channels
    query, key, value = (
        builder.buffer(each.shape[0]) for each in (part.query, part.key, part.value)
    )
    heads, key_heads = query.width // channels, key.width // channels
    matrices = (
        matrix_of(builder, part.query, part.query_bias),
        matrix_of(builder, part.key, part.key_bias),
        matrix_of(builder, part.value, part.value_bias),
    )
    outs = (query, key, value)
    builder.stage(
        *(product_of(builder, m, source, out) for m, out in zip(matrices, outs, strict=True))
    )
    turn = turn_of(position, builder, channels)
    queries = norm_of(part.query_norm, builder) if part.query_norm else _NONE
    keys = norm_of(part.key_norm, builder) if part.key_norm else _NONE
    steps = builder.positions.data_ptr(), builder.rows.data_ptr(), builder.caches[layer].data_ptr()
    prepare = Heads(
        *steps, query.address, query.width, key.address, key.width, value.address, value.width,
        heads, key_heads, channels, queries.kind, 0 if part.norm_over_all else channels,
        queries.gain, queries.bias, keys.gain, keys.bias, turn.tables, turn.rotated, turn.layout,
    )  # fmt: skip
    repeat = builder.count.data_ptr()
    builder.stage(builder.operation(HEADS, prepare, 1, repeat, queries.epsilon))
    out, group = builder.buffer(query.width), heads // key_heads
    together = group if key_heads > 1 else 1
    read = Attend(
        *steps, query.address, query.width, out.address, out.width, heads, key_heads, channels,
        part.mask.window or 0, part.mask.sinks, together,
        builder.room(builder.threads, BLOCK).data_ptr(), BLOCK,
    )  # fmt: skip
    scale = channels**-0.5 * turn.logit_scale
    builder.stage(builder.operation(ATTEND, read, heads // together, repeat, scale))
    done = builder.buffer(source.width)
    output = matrix_of(builder, part.output, part.output_bias)
    builder.stage(product_of(builder, output, out, done, residual))
    return done
