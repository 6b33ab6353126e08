"""How a block's branches meet."""

from functools import singledispatch

from coterie.generate.native.builder import Buffer, Layer, LoweringError
from coterie.generate.native.kernels.mix import MIX, Mix
from coterie.generate.native.lower.attention import attended
from coterie.generate.native.lower.feedforward import fed
from coterie.generate.native.lower.matrices import multiplied
from coterie.generate.native.lower.norms import normalised
from coterie.model.block_layout import BlockLayoutPart, ParallelPart, SequentialPart
from coterie.model.blocks import Block


@singledispatch
def through(layout: BlockLayoutPart, layer: Layer, block: Block, stream: Buffer) -> Buffer:
    """Add a block; return where the stream after it will be.

    Raises:
        LoweringError: it has something that no kernel computes.
    """
    raise LoweringError(f"no kernel for {type(layout).__name__}")


@through.register
def _sequential(layout: SequentialPart, layer: Layer, block: Block, stream: Buffer) -> Buffer:
    assert block.feedforward_norm is not None
    builder = layer.builder
    normal = normalised(builder, block.attention_norm, stream)
    stream = attended(block.attention, layer, normal, stream)
    normal = normalised(builder, block.feedforward_norm, stream)
    return fed(block.feedforward, builder, normal, stream)


@through.register
def _parallel(layout: ParallelPart, layer: Layer, block: Block, stream: Buffer) -> Buffer:
    builder = layer.builder
    normal = normalised(builder, block.attention_norm, stream)
    own = block.feedforward_norm
    other = normal if own is None else normalised(builder, own, stream)
    if layout.gate is None:
        stream = attended(block.attention, layer, normal, stream)
        return fed(block.feedforward, builder, other, stream)
    read = attended(block.attention, layer, normal, None)
    update = fed(block.feedforward, builder, other, None)
    shares = layout.gate.shape[0]
    share = multiplied(builder, layout.gate, normal, layout.gate_bias)
    out = builder.buffer(stream.width)
    fields = Mix(
        stream.width, shares, share.address, stream.address, read.address, update.address,
        out.address,
    )  # fmt: skip
    builder.stage(builder.operation(MIX, fields, 1, builder.count.data_ptr()))
    return out
