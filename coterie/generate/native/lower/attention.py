"""Attention."""

from functools import singledispatch

from torch import nn

from coterie.generate.native.builder import Buffer, Layer, LoweringError, Operation
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


@singledispatch
def attended(part: nn.Module, layer: Layer, source: Buffer, residual: Buffer | None) -> Buffer:
    """Add an attention layer; return where residual + attention(source) will be.

    Raises:
        LoweringError: it has something that no kernel computes.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


attended.register(LatentAttentionPart, latent_attended)
attended.register(LatentVectorAttentionPart, latent_vectors_attended)


@attended.register
def _grouped(
    part: GroupedAttentionPart, layer: Layer, source: Buffer, residual: Buffer | None
) -> Buffer:
    builder, channels = layer.builder, part.channels
    query, key, value = projected(builder, part, source)
    heads, key_heads = query.width // channels, key.width // channels
    turn = turn_of(layer.position, builder, channels)
    queries = norm_of(part.query_norm, builder) if part.query_norm else PLAIN
    keys = norm_of(part.key_norm, builder) if part.key_norm else PLAIN
    prepare = Heads(
        *layer.where, query.address, query.width, key.address, key.width, value.address,
        value.width, heads, key_heads, channels, queries.kind,
        0 if part.norm_over_all else channels, queries.gain, queries.bias, keys.gain, keys.bias,
        turn.tables, turn.rotated, turn.layout,
    )  # fmt: skip
    repeat = builder.count.data_ptr()
    builder.stage(builder.operation(HEADS, prepare, 1, repeat, queries.epsilon))
    out = builder.buffer(query.width)
    builder.stage(_reading(part, layer, query, out, turn.logit_scale))
    return multiplied(builder, part.output, out, part.output_bias, residual)


def _reading(
    part: GroupedAttentionPart, layer: Layer, query: Buffer, out: Buffer, logit_scale: float
) -> Operation:
    """Return the operation by which heads read their past."""
    builder, channels = layer.builder, part.channels
    heads, key_heads = query.width // channels, part.key.shape[0] // channels
    scale = channels**-0.5 * logit_scale
    together = heads // key_heads if key_heads > 1 else 1
    scratch = builder.room(builder.threads, BLOCK).data_ptr(), BLOCK
    read = Attend(
        *layer.where, query.address, query.width, out.address, out.width, heads, key_heads,
        channels, pattern_of(part.mask, builder), together, *scratch,
    )  # fmt: skip
    return builder.operation(ATTEND, read, heads // together, builder.count.data_ptr(), scale)
