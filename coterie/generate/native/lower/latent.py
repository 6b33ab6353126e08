"""Latent attention."""

from coterie.generate.native.builder import Buffer, Layer
from coterie.generate.native.kernels.latent import ABSORB, COMPRESS, Absorb, Compress, scratch_of
from coterie.generate.native.kernels.sums import sums_like
from coterie.generate.native.lower.masks import pattern_of
from coterie.generate.native.lower.matrices import matrix_of, multiplied, product_of
from coterie.generate.native.lower.norms import PLAIN, norm_of
from coterie.generate.native.lower.positions import Turn, turn_of
from coterie.model.attention.mla import LatentAttentionPart


def latent_attended(
    part: LatentAttentionPart, layer: Layer, source: Buffer, residual: Buffer | None
) -> Buffer:
    """Add latent attention; return where residual + attention(source) will be."""
    turn = turn_of(layer.position, layer.builder, part.settings.rope_dim)
    query = _compressed(part, layer, turn, source)
    mixed = _absorbed(part, layer, turn, query)
    return multiplied(layer.builder, part.output, mixed, part.output_bias, residual)


def _compressed(part: LatentAttentionPart, layer: Layer, turn: Turn, source: Buffer) -> Buffer:
    """Add what is kept of the tokens; return where their queries will be."""
    sizes, builder = part.settings, layer.builder
    down = matrix_of(builder, part.kv_down, part.kv_down_bias)
    weight = part.query if part.query_down is None else part.query_down
    assert weight is not None
    first, latent = builder.buffer(weight.shape[0]), builder.buffer(down.outer)
    own = matrix_of(builder, weight, part.query_down_bias)
    builder.stage(
        product_of(builder, own, source, first), product_of(builder, down, source, latent)
    )
    norm = norm_of(part.kv_norm, builder) if part.kv_norm else PLAIN
    other = norm_of(part.query_norm, builder) if part.query_norm else PLAIN
    fields = Compress(
        *layer.where, latent.address, latent.width, sizes.kv_rank, sizes.rotary_keys,
        sizes.rope_dim, norm.kind, norm.gain, norm.bias, first.address, first.width,
        sizes.query_rank or 0, other.kind, other.gain, other.bias, turn.tables, turn.rotated,
        turn.layout,
    )  # fmt: skip
    repeat = builder.count.data_ptr()
    builder.stage(builder.operation(COMPRESS, fields, 1, repeat, norm.epsilon, other.epsilon))
    return first if part.query_up is None else multiplied(builder, part.query_up, first)


def _absorbed(part: LatentAttentionPart, layer: Layer, turn: Turn, query: Buffer) -> Buffer:
    """Add the reading of the latents; return where the heads' outputs will be."""
    sizes, builder = part.settings, layer.builder
    up = matrix_of(builder, part.kv_up)
    out = builder.buffer(sizes.heads * sizes.value_channels)
    together = _together(sizes.heads, builder.threads)
    room = scratch_of(together, sizes.kv_rank, sizes.rope_dim)
    fields = Absorb(
        *layer.where, query.address, query.width, out.address, out.width, together,
        sizes.nope_dim, sizes.rope_dim, sizes.value_channels, sizes.kv_rank, sizes.rotary_keys,
        up.weight, up.scale, up.rows, sums_like(up.rows), turn.tables, turn.rotated, turn.layout,
        pattern_of(part.mask, builder), builder.room(builder.threads, room).data_ptr(), room,
    )  # fmt: skip
    tasks = sizes.heads // together
    scale = (sizes.nope_dim + sizes.rope_dim) ** -0.5 * turn.logit_scale
    builder.stage(builder.operation(ABSORB, fields, tasks, builder.count.data_ptr(), scale))
    return out


def _together(heads: int, threads: int) -> int:
    """Return how many heads share a task: as many as leave every thread at least two."""
    most = max(heads // (2 * threads), 1)
    return next(number for number in range(most, 0, -1) if heads % number == 0)
