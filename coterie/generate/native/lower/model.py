"""The whole decoder as a program, and how the branches of its blocks meet."""

from functools import singledispatch

from coterie.generate.native.builder import Buffer, Builder, Layer, LoweringError
from coterie.generate.native.kernels.ngrams import NGRAMS, Ngrams
from coterie.generate.native.kernels.vectors import MIX, Mix
from coterie.generate.native.lower.attention import attended
from coterie.generate.native.lower.feedforward import fed
from coterie.generate.native.lower.matrices import multiplied
from coterie.generate.native.lower.vectors import added, embedded, joined, normalised
from coterie.model import Decoder
from coterie.model.block_layout import BlockLayoutPart, ParallelPart, SequentialPart
from coterie.model.blocks import Block
from coterie.model.embedding import FactorisedEmbeddingPart
from coterie.model.heads import NgramModel
from coterie.model.position import PositionPart


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


def lower(decoder: Decoder, builder: Builder) -> Buffer:
    """Add the decoder; return where the logits will be.

    Raises:
        LoweringError: it has something that no kernel computes.
    """
    position = decoder.position
    assert isinstance(position, PositionPart)
    if decoder.lookback:
        builder.history(decoder.lookback, decoder.settings.known_vocab_size())
    stream = embedded(decoder.embedding, builder)
    for operation in added(position, builder, stream):
        builder.stage(operation)
    for number, part in enumerate(decoder.additive, start=1):
        builder.stage(joined(part, builder, f"additive.{number}", stream))
    if decoder.embedding_norm is not None:
        stream = normalised(builder, decoder.embedding_norm, stream)
    for number, block in enumerate(decoder.blocks):
        assert isinstance(block, Block)
        stream = through(block.block_layout, Layer(builder, position, number), block, stream)
    builder.hidden = stream
    logits = _head(decoder, builder, normalised(builder, decoder.norm, stream))
    if decoder.ngram is not None:
        _counted(decoder.ngram, builder, logits)
    return logits


def _head(decoder: Decoder, builder: Builder, final: Buffer) -> Buffer:
    head, embedding = decoder.head, decoder.embedding
    weight = head.weight
    if weight is None:
        weight = embedding.weight
        if isinstance(embedding, FactorisedEmbeddingPart):
            final = multiplied(builder, builder.copy(embedding.projection.mT), final)
    return multiplied(builder, weight, final, head.bias)


def _counted(part: NgramModel, builder: Builder, logits: Buffer) -> None:
    levels = part.levels()
    builder.sources.append(part.grams)
    if not levels:
        return
    words: list[int] = []
    for level in levels:
        tensors = level.contexts, level.starts, level.left, level.followers, level.weights
        builder.kept += tensors
        contexts, *others = (each.data_ptr() for each in tensors)
        words += [contexts, len(level.contexts), *others]
    assert builder.past is not None
    shares = builder.buffer(logits.width)
    fields = Ngrams(
        builder.past.data_ptr(), builder.past.shape[1], builder.words(words), len(levels),
        logits.width, shares.address, shares.width, logits.address, logits.width,
    )  # fmt: skip
    share = part.settings.share
    builder.stage(builder.operation(NGRAMS, fields, 1, builder.count.data_ptr(), share))
