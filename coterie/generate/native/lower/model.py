"""The whole decoder as a program."""

from coterie.generate.native.builder import Buffer, Builder, Layer
from coterie.generate.native.kernels.ngrams import NGRAMS, Ngrams
from coterie.generate.native.lower.additive import joined
from coterie.generate.native.lower.embeddings import embedded
from coterie.generate.native.lower.layouts import through
from coterie.generate.native.lower.matrices import multiplied
from coterie.generate.native.lower.norms import normalised
from coterie.generate.native.lower.positions import added
from coterie.model import Decoder
from coterie.model.blocks import Block
from coterie.model.embedding import FactorisedEmbeddingPart
from coterie.model.heads import NgramModel
from coterie.model.position import PositionPart


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
