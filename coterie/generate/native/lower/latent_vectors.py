"""Latent-vector attention."""

from coterie.generate.native.builder import Buffer, Layer
from coterie.generate.native.kernels.attend import BLOCK
from coterie.generate.native.kernels.summaries import KEEP, READ, SUMMARISE, Chunked
from coterie.generate.native.lower.matrices import multiplied, projected
from coterie.generate.native.lower.positions import turn_of
from coterie.model.attention.latent_vectors import LatentVectorAttentionPart


def latent_vectors_attended(
    part: LatentVectorAttentionPart, layer: Layer, source: Buffer, residual: Buffer | None
) -> Buffer:
    """Add latent-vector attention; return where residual + attention(source) will be."""
    builder, channels, (key_heads, number, _) = layer.builder, part.channels, part.latents.shape
    query, key, value = projected(builder, part, source)
    turn, out = turn_of(layer.position, builder, channels), builder.buffer(query.width)
    heads, room = query.width // channels, BLOCK + channels
    fields = Chunked(
        *layer.where, query.address, query.width, key.address, key.width, value.address,
        value.width, out.address, out.width, heads, key_heads, channels, turn.tables,
        turn.rotated, turn.layout, part.chunk, builder.vector(part.latents), number,
        builder.room(builder.threads, room).data_ptr(), room,
    )  # fmt: skip
    repeat, scale = builder.count.data_ptr(), channels**-0.5 * turn.logit_scale
    builder.stage(builder.operation(KEEP, fields, 1, repeat))
    builder.stage(
        builder.operation(READ, fields, heads, repeat, scale),
        builder.operation(SUMMARISE, fields, key_heads * number, repeat, scale),
    )
    return multiplied(builder, part.output, out, part.output_bias, residual)
