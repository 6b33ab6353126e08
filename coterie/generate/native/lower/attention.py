"""Attention: its masks, latent attention, attention over latent vectors, and the grouped one."""

from functools import singledispatch

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, Layer, LoweringError, Operation
from coterie.generate.native.kernels.attend import ATTEND, BLOCK, Attend
from coterie.generate.native.kernels.heads import HEADS, Heads
from coterie.generate.native.kernels.latent import ABSORB, COMPRESS, Absorb, Compress, scratch_of
from coterie.generate.native.kernels.mask import ALL, BLOCKS, DILATED, STRIDED, Pattern
from coterie.generate.native.kernels.rows import sums_like
from coterie.generate.native.kernels.summaries import KEEP, READ, SUMMARISE, Chunked
from coterie.generate.native.lower.matrices import matrix_of, multiplied, product_of, projected
from coterie.generate.native.lower.vectors import PLAIN, Turn, norm_of, turn_of
from coterie.model.attention.grouped import GroupedAttentionPart
from coterie.model.attention.latent_vectors import LatentVectorAttentionPart
from coterie.model.attention.mask import Mask
from coterie.model.attention.mla import LatentAttentionPart
from coterie.model.attention.sparse import (
    BlockPattern,
    DilatedPattern,
    SparsePattern,
    StridedPattern,
)

_SINKS = 1  # runs before those of a pattern


def pattern_of(mask: Mask, builder: Builder) -> int:
    """Return where a mask stands.

    Raises:
        LoweringError: no kernel knows its pattern.
    """
    runs, kind, sizes = (1, ALL, ()) if mask.sparse is None else _runs(mask.sparse)
    size, local, first, chosen, seed = (*sizes, 0, 0, 0, 0, 0)[:5]
    return builder.words(
        Pattern(_SINKS + runs, kind, mask.window or 0, mask.sinks, size, local, first, chosen, seed)
    )


@singledispatch
def _runs(sparse: SparsePattern) -> tuple[int, int, tuple[int, ...]]:
    """Return how many runs of positions a pattern shows, its kind and its sizes."""
    raise LoweringError(f"no kernel for {type(sparse).__name__}")


@_runs.register
def _strided(sparse: StridedPattern) -> tuple[int, int, tuple[int, ...]]:
    return 2, STRIDED, (sparse.stride,)


@_runs.register
def _dilated(sparse: DilatedPattern) -> tuple[int, int, tuple[int, ...]]:
    return 1, DILATED, (sparse.stride,)


@_runs.register
def _blocks(sparse: BlockPattern) -> tuple[int, int, tuple[int, ...]]:
    sizes = (sparse.size, sparse.local, sparse.first, sparse.chosen, sparse.seed)
    return 2 + sparse.chosen, BLOCKS, sizes


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
