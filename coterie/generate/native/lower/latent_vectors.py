"""Latent-vector attention."""

from coterie.generate.native.builder import Buffer, Builder
from coterie.generate.native.kernels.attend import BLOCK
from coterie.generate.native.kernels.summaries import KEEP, READ, SUMMARISE, Chunked
from coterie.generate.native.lower.matrices import multiplied, projected
from coterie.generate.native.lower.positions import turn_of
from coterie.model.attention.latent_vectors import LatentVectorAttentionPart
from coterie.model.position import PositionPart


def latent_vectors_attended(
    part: LatentVectorAttentionPart,
    builder: Builder,
    position: PositionPart,
    layer: int,
    source: Buffer,
    residual: Buffer | None,
) -> Buffer:
    """Add latent-vector attention; return where residual + attention(source) will be."""
    channels, (key_heads, number, _) = part.channels, part.latents.shape
    query, key, value = projected(builder, part, source)
    turn, out = turn_of(position, builder, channels), builder.buffer(query.width)
    heads, room = query.width // channels, BLOCK + channels
    fields = Chunked(
        builder.positions.data_ptr(), builder.rows.data_ptr(), builder.caches[layer].data_ptr(),
        query.address, query.width, key.address, key.width, value.address, value.width,
        out.address, out.width, heads, key_heads, channels, turn.tables, turn.rotated, turn.layout,
        part.chunk, builder.vector(part.latents), number,
        builder.room(builder.threads, room).data_ptr(), room,
    )  # fmt: skip
    repeat, scale = builder.count.data_ptr(), channels**-0.5 * turn.logit_scale
    builder.stage(builder.operation(KEEP, fields, 1, repeat))
    builder.stage(
        builder.operation(READ, fields, heads, repeat, scale),
        builder.operation(SUMMARISE, fields, key_heads * number, repeat, scale),
    )
    return multiplied(builder, part.output, out, part.output_bias, residual)
