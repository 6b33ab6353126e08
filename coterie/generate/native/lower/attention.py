"""Attention."""

from functools import singledispatch

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, LoweringError, Operation
from coterie.generate.native.kernels.attend import ATTEND, BLOCK, Attend
from coterie.generate.native.kernels.heads import HEADS, Heads
from coterie.generate.native.lower.latent import latent_attended
from coterie.generate.native.lower.latent_vectors import latent_vectors_attended
from coterie.generate.native.lower.masks import pattern_of
from coterie.generate.native.lower.matrices import multiplied, projected
from coterie.generate.native.lower.norms import PLAIN, norm_of
from coterie.generate.native.lower.positions import turn_of
from coterie.model.attention.grouped import GroupedAttentionPart
from coterie.model.attention.latent_vectors import LatentVectorAttentionPart
from coterie.model.attention.mla import LatentAttentionPart
from coterie.model.position import PositionPart


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


attended.register(LatentAttentionPart, latent_attended)
attended.register(LatentVectorAttentionPart, latent_vectors_attended)


@attended.register
def _grouped(
    part: GroupedAttentionPart,
    builder: Builder,
    position: PositionPart,
    layer: int,
    source: Buffer,
    residual: Buffer | None,
) -> Buffer:
    channels = part.channels
    query, key, value = projected(builder, part, source)
    heads, key_heads = query.width // channels, key.width // channels
    turn = turn_of(position, builder, channels)
    queries = norm_of(part.query_norm, builder) if part.query_norm else PLAIN
    keys = norm_of(part.key_norm, builder) if part.key_norm else PLAIN
    steps = builder.positions.data_ptr(), builder.rows.data_ptr(), builder.caches[layer].data_ptr()
    prepare = Heads(
        *steps, query.address, query.width, key.address, key.width, value.address, value.width,
        heads, key_heads, channels, queries.kind, 0 if part.norm_over_all else channels,
        queries.gain, queries.bias, keys.gain, keys.bias, turn.tables, turn.rotated, turn.layout,
    )  # fmt: skip
    repeat = builder.count.data_ptr()
    builder.stage(builder.operation(HEADS, prepare, 1, repeat, queries.epsilon))
    out = builder.buffer(query.width)
    builder.stage(_reading(part, builder, layer, query, out, turn.logit_scale))
    return multiplied(builder, part.output, out, part.output_bias, residual)


def _reading(
    part: GroupedAttentionPart,
    builder: Builder,
    layer: int,
    query: Buffer,
    out: Buffer,
    logit_scale: float,
) -> Operation:
    """Return the operation by which heads read their past."""
    channels, repeat = part.channels, builder.count.data_ptr()
    heads, key_heads = query.width // channels, part.key.shape[0] // channels
    scale = channels**-0.5 * logit_scale
    where = (
        builder.positions.data_ptr(), builder.rows.data_ptr(), builder.caches[layer].data_ptr(),
        query.address, query.width, out.address, out.width, heads, key_heads, channels,
    )  # fmt: skip
    together = heads // key_heads if key_heads > 1 else 1
    scratch = builder.room(builder.threads, BLOCK).data_ptr(), BLOCK
    read = Attend(*where, pattern_of(part.mask, builder), together, *scratch)
    return builder.operation(ATTEND, read, heads // together, repeat, scale)
