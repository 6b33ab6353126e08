"""What a decoder of given settings costs, counted by formula and laid out as a tree."""

from dataclasses import dataclass
from itertools import groupby

from coterie.model.costs import Count, linear
from coterie.model.decoder import DecoderSettings


@dataclass(frozen=True)
class TreeRow:
    """One line of the layer tree; figures include the rows below it that are deeper."""

    depth: int
    name: str
    detail: str
    parameters: int
    active_parameters: int
    flops: float
    cache_bytes: int | float


@dataclass(frozen=True)
class Counts:
    """What a decoder costs.

    Attributes:
        settings: of the decoder.
        parameters: values that training moves.
        active_parameters: of these, those multiplied for one token: without look-ups and experts
            that are not selected, with the output head.
        cache_bytes_per_token: kept for each earlier token when generating in float32; layers with
            a window keep no more than that many tokens.
        tree: the decoder's parts in reading order, equal neighbours joined.
    """

    settings: DecoderSettings
    parameters: int
    active_parameters: int
    cache_bytes_per_token: int | float
    tree: tuple[TreeRow, ...]

    def flops_per_token(self, context: int | None = None) -> float:
        """Return the operations of one token's forward pass, mean over a text of `context` tokens.

        Matrix products at two operations per multiplication; attention over the positions that
        the causal mask and the window let through.
        """
        return count_tree(self.settings, context).flops

    def training_flops_per_token(self, context: int | None = None) -> float:
        """Return the operations that training costs per token of texts of `context` tokens.

        Three forward passes' worth: one forward, one backward to the inputs, one to the weights;
        with the modules of multi-token prediction, which training alone computes.
        """
        context = context or self.settings.context
        return 3 * (self.flops_per_token(context) + _mtp_flops(self.settings, context))

    def decoding_flops(self, position: int | None = None) -> float:
        """Return the operations of the token at a position, counted from 1, all before it cached.

        Exact from the means: what a text of T tokens costs beyond one of T − 1.

        Args:
            position: of the token; None: the last of the context.
        """
        last = position or self.settings.context
        before = (last - 1) * self.flops_per_token(last - 1) if last > 1 else 0.0
        return last * self.flops_per_token(last) - before


def count(settings: DecoderSettings) -> Counts:
    """Count a decoder.

    Raises:
        SettingsError: the vocabulary's size is not set.
    """
    whole = count_tree(settings)
    float_bytes = 4
    rows = (
        TreeRow(
            depth=depth,
            name=part.name,
            detail=part.detail,
            parameters=part.parameters,
            active_parameters=part.active,
            flops=part.flops,
            cache_bytes=part.cache * float_bytes,
        )
        for depth, part in whole.walk()
    )
    return Counts(settings, whole.parameters, whole.active, whole.cache * float_bytes, tuple(rows))


def count_tree(settings: DecoderSettings, context: int | None = None) -> Count:
    """Return the tree of a decoder's counts over texts of `context` tokens (None: its own)."""
    vocab_size, width = settings.known_vocab_size(), settings.width
    parts = [settings.embedding.counts(vocab_size, width)]
    if settings.embedding_norm:
        parts.append(settings.norm.counts("embedding_norm", width))
    parts.append(settings.position.counts(width, settings.context))
    parts += [each.counts(width) for each in settings.additive]
    layer = 0
    for plan, group in groupby(settings.plans()):
        number = len(tuple(group))
        name = f"block {layer}" if number == 1 else f"blocks {layer}–{layer + number - 1}"
        parts.append(plan.counts(name, width, context or settings.context).times(number))
        layer += number
    parts.append(settings.norm.counts("norm", width))
    parts.append(settings.head.counts(settings.embedding, vocab_size, width))
    if settings.ngram is not None:
        parts.append(settings.ngram.counts(vocab_size))
    if settings.mtp is not None:
        parts += settings.mtp.counts(settings.mtp_plan(), settings.norm, width)
    parts += [part.counts(width) for part in (settings.value, settings.pooled) if part is not None]
    return Count.of("decoder", f"{settings.layers} layers of {width}", parts)


def _mtp_flops(settings: DecoderSettings, context: int) -> float:
    """Return the operations per token of predicting further tokens; depth k reads T − k of T."""
    if settings.mtp is None:
        return 0.0
    width, plan = settings.width, settings.mtp_plan()
    head = settings.head.counts(settings.embedding, settings.known_vocab_size(), width).flops
    total = 0.0
    for depth in range(1, min(settings.mtp.depth, context - 1) + 1):
        tokens = context - depth
        block = plan.counts("block", width, tokens).flops
        total += tokens * (linear("projection", 2 * width, width).flops + block + head)
    return total / context
