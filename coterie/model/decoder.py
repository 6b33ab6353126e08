"""The decoder: embedding, blocks, head. One model for every system; systems differ in settings.

It knows nothing of optimizers, devices, precision, processes or files: those come from outside.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from coterie.batch import IGNORE
from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.settings import Settings
from coterie.model.additive import AdditiveEmbedding, AdditivePart
from coterie.model.attention import Attention, GroupedAttention
from coterie.model.block_layout import BlockLayout, Sequential
from coterie.model.blocks import Block, BlockPlan, BlockSettings
from coterie.model.cache import DecoderCache
from coterie.model.checkpointing import Checkpointing, through
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.dropout import Dropout, IndependentDropout, depth_rate
from coterie.model.embedding import Embedding, FullEmbedding
from coterie.model.experts import RouterStats
from coterie.model.feedforward import Dense, FeedForward
from coterie.model.head import HeadSettings
from coterie.model.heads import (
    MTPModule,
    MTPSettings,
    NgramSettings,
    PooledSettings,
    ValueSettings,
    mtp_targets,
)
from coterie.model.initialise import InitialSettings, initialise
from coterie.model.loss import of_logits
from coterie.model.norm import Norm, RMSNorm
from coterie.model.output import Output
from coterie.model.placing import latest, placed, with_valid
from coterie.model.position import Position, RotaryPosition, Span


class DecoderSettings(Settings):
    """Settings of a decoder.

    `attention`, `feedforward` and `norm` hold for every layer. `blocks` names variations of them;
    `opening` lists the variations of the first layers, `pattern` is cycled over the others.
    """

    renamed = {"ahead": "mtp", "arrangement": "block_layout", "structure": "additive"}

    layers: int = Field(ge=1, le=1024, description="number of blocks")
    width: int = Field(ge=1, description="channels of the residual stream")
    context: int = Field(ge=1, le=1 << 24, description="tokens of a training window")
    vocab_size: int | None = Field(
        default=None, ge=1, description="rows of the embedding; None: taken from the tokenizer"
    )
    embedding: Embedding = Field(default=FullEmbedding(), description="from tokens to vectors")
    embedding_norm: bool = Field(default=False, description="normalise the embedded tokens")
    position: Position = Field(
        default=RotaryPosition(), description="how tokens know where they stand"
    )
    additive: tuple[AdditiveEmbedding, ...] = Field(
        default=(), description="vectors added to the tokens' own, such as where they stand"
    )
    norm: Norm = Field(default=RMSNorm(), description="normalisation of the stream")
    block_layout: BlockLayout = Field(
        default=Sequential(), description="how a layer's attention and feed-forward part meet"
    )
    attention: Attention = Field(default=GroupedAttention(), description="attention of every layer")
    feedforward: FeedForward = Field(
        default=Dense(), description="feed-forward part of every layer"
    )
    blocks: dict[str, BlockSettings] = Field(default={}, description="named variations of a layer")
    opening: tuple[str, ...] = Field(default=(), description="variations of the first layers")
    pattern: tuple[str, ...] = Field(
        default=(), description="variations cycled over the other layers"
    )
    head: HeadSettings = Field(default=HeadSettings(), description="from hidden states to logits")
    mtp: MTPSettings | None = Field(
        default=None, description="further tokens predicted while training"
    )
    ngram: NgramSettings | None = Field(
        default=None, description="counted n-grams that predict beside the network"
    )
    value: ValueSettings | None = Field(default=None, description="one number per position")
    pooled: PooledSettings | None = Field(default=None, description="one vector per text")
    dropout: Dropout = Field(
        default=IndependentDropout(), description="share of the stream's updates dropped"
    )
    stochastic_depth: float = Field(
        default=0.0, ge=0, lt=1, description="how often a row skips the last layer; less below it"
    )
    initial: InitialSettings = Field(default=InitialSettings(), description="initial values")

    @model_validator(mode="after")
    def _fits_together(self) -> "DecoderSettings":
        further = self.mtp.block if self.mtp else None
        named = {*self.opening, *self.pattern, *([further] if further else [])}
        for name in sorted(named):
            if name not in self.blocks:
                raise ValueError(f"there is no block “{name}”; {nearest(name, self.blocks)}")
        if len(self.opening) > self.layers:
            raise ValueError(f"opening names {len(self.opening)} layers of {self.layers}")
        unused = set(self.blocks) - named
        if unused:
            raise ValueError(f"neither opening nor pattern names block “{min(unused)}”")
        if self.mtp and self.mtp.depth >= self.context:
            raise ValueError(
                f"mtp.depth={self.mtp.depth} leaves nothing to predict in a context of "
                f"{self.context} tokens"
            )
        self.embedding.check(self.width)
        self.dropout.check(self.width)
        for plan in dict.fromkeys((*self._kinds_of_plans(), self.mtp_plan())):
            plan.check(self.width)
            self.position.check(plan.attention.channels(self.width))
        return self

    def _kinds_of_plans(self) -> list[BlockPlan]:
        """Return each layer that differs from others once."""
        cycle = self.pattern or (None,)
        rest = cycle[: self.layers - len(self.opening)]
        return [self._plan(name) for name in dict.fromkeys((*self.opening, *rest))]

    def plans(self) -> tuple[BlockPlan, ...]:
        """Return every layer with its variations resolved, from the bottom up."""
        cycle = [
            self.pattern[i % len(self.pattern)] if self.pattern else None
            for i in range(self.layers - len(self.opening))
        ]
        return tuple(self._plan(name) for name in (*self.opening, *cycle))

    def mtp_plan(self) -> BlockPlan:
        """Return the block of each module of multi-token prediction."""
        name = None if self.mtp is None else self.mtp.block
        return self.plans()[-1] if name is None else self._plan(name)

    def _plan(self, name: str | None) -> BlockPlan:
        block = BlockSettings() if name is None else self.blocks[name]
        return BlockPlan(
            attention=block.attention or self.attention,
            feedforward=block.feedforward or self.feedforward,
            norm=block.norm or self.norm,
            block_layout=block.block_layout or self.block_layout,
        )

    def known_vocab_size(self) -> int:
        """Return the vocabulary's size.

        Raises:
            SettingsError: it is not set.
        """
        if self.vocab_size is None:
            raise SettingsError(
                "The model's vocabulary size is not known.",
                hint="Set model.vocab_size, or build the model together with its tokenizer.",
            )
        return self.vocab_size

    def build(self, generator: torch.Generator | None = None) -> "Decoder":
        """Return a decoder with initial values.

        Args:
            generator: where chance comes from; None: torch's global one.

        Raises:
            SettingsError: the vocabulary's size is not set.
        """
        decoder = Decoder(self)
        decoder.initialise(generator)
        return decoder


class Decoder(nn.Module):
    """A causal language model.

    Attributes:
        settings: what it was built from.
        activation_checkpointing: whether blocks keep only their inputs for the backward pass and
            are recomputed there (Chen et al. 2016, arXiv:1604.06174). The second pass repeats the
            first one's routing, whatever rounding does, and enters no statistics. “selective”
            keeps the results of matrix products as well (Korthikanti et al. 2022, section 5).
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        vocab_size, width = settings.known_vocab_size(), settings.width
        self.settings = settings
        self.activation_checkpointing: Checkpointing = False
        self.embedding = settings.embedding.build(vocab_size, width)
        self.embedding_norm = settings.norm.build(width) if settings.embedding_norm else None
        self.position = settings.position.build(width, settings.context)
        self.additive = nn.ModuleList(each.build(width) for each in settings.additive)
        self.dropout = settings.dropout.build()
        layers, drop, rate = settings.layers, settings.dropout, settings.stochastic_depth
        self.blocks = nn.ModuleList(
            Block(plan, width, drop, depth_rate(rate, layer, layers))
            for layer, plan in enumerate(settings.plans())
        )
        self.norm = settings.norm.build(width)
        self.head = settings.head.build(vocab_size, width)
        self.ngram = settings.ngram.build(vocab_size) if settings.ngram else None
        further = range(settings.mtp.depth if settings.mtp else 0)
        self.mtp = nn.ModuleList(
            MTPModule(settings.mtp_plan(), settings.norm, width, drop) for k in further
        )
        self.value = settings.value.build(width) if settings.value else None
        self.pooled = settings.pooled.build(width) if settings.pooled else None

    @property
    def lookback(self) -> int:
        """Tokens before a new one that its reading depends on, beyond what layers keep."""
        counted = 0 if self.ngram is None else self.ngram.lookback
        return max(self.embedding.lookback, counted)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; without a generator from torch's global one."""
        initialise(self, self.settings.initial, self.settings.layers, generator)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"] | None = None,
        context: ForwardContext = EMPTY,
        *,
        last: int | None = None,
        hidden_states: bool = False,
    ) -> Output:
        """Predict the token after each position.

        Args:
            targets: the tokens to predict; `IGNORE` is left out. With them the loss is returned
                and no logits.
            last: return the logits of the last N positions only.
            hidden_states: return the final hidden states as well.

        Raises:
            UserError: the text is longer than the positions the model knows.
        """
        cache = context.cache
        given = context
        context, span = placed(with_valid(given, tokens, targets), tokens, self.position)
        stream = None if context.section is None else context.section.stream
        # Modules of multi-token prediction read embedded tokens, wherever the stream comes from.
        needed = stream is None or (self.training and len(self.mtp))
        embedded = self._embed(tokens, context, span) if needed else None
        grams = self._grams(tokens, context, span)
        begin = embedded if stream is None else stream
        assert begin is not None
        hidden, routing = self._through_blocks(begin, context)
        if cache is not None:
            cache.extend(tokens, context.rows)
        if context.section is not None and not context.section.ends:
            return Output(None, None, routing, hidden_states=hidden)
        final = self.norm(hidden)
        pooled = None
        if self.pooled is not None and cache is None and context.documents is None:
            pooled = self.pooled(final, with_valid(given, tokens, None).valid)
        if targets is None and last is not None:
            final = latest(final, last, context.lengths)
            grams = None if grams is None else latest(grams, last, context.lengths)
        values = None if self.value is None else self.value(final)
        states = final if hidden_states else None
        if targets is None:
            logits = self._logits(final, grams)
            return Output(logits, None, routing, (), values, pooled, states)
        losses = self._losses(final, targets, grams)
        mtp, further = (), ()
        if self.training and len(self.mtp):
            assert embedded is not None
            mtp, further = self._mtp_losses(embedded, hidden, targets, context)
        return Output(None, losses, routing + further, mtp, values, pooled, states)

    def predict_mtp(
        self, tokens: Int[Tensor, "B T"], documents: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B n V"], ...]:
        """Return the logits of multi-token prediction, for each depth k those of T − k positions.

        Logits i of depth k are for token i + k + 1 and have seen the tokens up to i + k.
        """
        context, span = placed(ForwardContext(documents=documents), tokens, self.position)
        embedded = self._embed(tokens, context, span)
        hidden, _ = self._through_blocks(embedded, context)
        nothing = [None] * min(len(self.mtp), tokens.shape[1] - 1)
        chain = self._chain(embedded, hidden, context, nothing)
        return tuple(self._logits(final) for final, _ in chain)

    def read_module(
        self,
        module: int,
        hidden: Float[Tensor, "B T D"],
        text: Int[Tensor, "B S"],
        cache: DecoderCache,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B V"]]:
        """Let a module of multi-token prediction go on through a cache of its one layer.

        Args:
            module: its number, from 0.
            hidden: what the depth before made of T positions; for module 0 the last block, before
                the norm.
            text: whose last T tokens are those that the module joins them with, and which begins
                at least `embedding.lookback` before these, or with the text.
            cache: of the positions that it has read.

        Returns:
            What the next depth reads, and the logits of the last position.
        """
        assert self.settings.mtp is not None
        number, first = hidden.shape[1], cache.length + module + 1
        start = first + number - text.shape[1]
        part, span = self.mtp[module], Span(max(start, 0), text.shape[1], text.device)
        assert isinstance(part, MTPModule)
        later, joined = self._embed(text, EMPTY, span)[:, -number:], text[:, -number:]
        context, _ = placed(ForwardContext(cache=cache, router_stats=False), joined, self.position)
        normalised = self.settings.mtp.normalised
        hidden = self.norm(hidden) if normalised and module == 0 else hidden
        hidden, _ = part(hidden, later, context.but(kv_cache=cache.layers[0]))
        cache.extend(joined, context.rows)
        final = part.norm(hidden)
        return final if normalised else hidden, self._logits(final[:, -1])

    def carried(
        self, tokens: Int[Tensor, "B T"], lengths: tuple[int, ...], cache: DecoderCache
    ) -> dict[str, Tensor]:
        """Return what parts carry from token to token after rows that are read from the beginning.

        Args:
            lengths: how many of each are real.
            cache: one without layers that has read nothing.
        """
        context, span = placed(ForwardContext(cache=cache, lengths=lengths), tokens, self.position)
        self._embed(tokens, context, span)
        return cache.state

    def _embed(self, tokens: Tensor, context: ForwardContext, span: Span) -> Tensor:
        cache, lookback = context.cache, self.embedding.lookback
        recent = cache.recent_tokens(lookback) if cache is not None and lookback else None
        hidden = self.embedding(tokens, recent, span.at)
        parts = [self.position, *(cast("AdditivePart", each) for each in self.additive)]
        for number, part in enumerate(parts):
            name = f"additive.{number}"
            state = None if cache is None else cache.state.get(name)
            added, state = part.vectors(tokens, span, state)
            if added is not None:
                hidden = hidden + added
            if cache is not None and state is not None:
                cache.state[name] = state
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        return self.dropout(hidden)

    def _grams(self, tokens: Tensor, context: ForwardContext, span: Span) -> Tensor | None:
        """Return the n-grams that end with each token, unless the network predicts alone."""
        if self.ngram is None or self.training or not self.ngram.levels():
            return None
        cache, lookback = context.cache, self.ngram.lookback
        recent = cache.recent_tokens(lookback) if cache is not None and lookback else None
        return self.ngram.contexts(tokens, recent, span.at)

    def _through_blocks(
        self, hidden: Tensor, context: ForwardContext
    ) -> tuple[Tensor, tuple[RouterStats, ...]]:
        """Send the stream through all blocks; return it and the routers' statistics."""
        cache = context.cache
        again = self.activation_checkpointing if cache is None else False
        stats = []
        for layer, block in enumerate(self.blocks):
            if context.section is not None and layer not in context.section.layers:
                continue
            if cache is not None:
                context = context.but(kv_cache=cache.layers[layer])
            if context.routes is not None:
                context = context.but(replay=context.routes[layer])
            if context.run_block is None:
                hidden, of_layer = through(block, again, hidden, context=context)
            else:
                hidden, of_layer = context.run_block(block, hidden, context), None
            if of_layer is not None:
                stats.append(replace(of_layer, layer=layer))
            for observer in context.observers:
                observer.layer_done(layer, hidden)
        return hidden, tuple(stats)

    def _chain(
        self,
        embedded: Tensor,
        hidden: Tensor,
        context: ForwardContext,
        valids: Sequence[Tensor | None],
    ) -> Iterator[tuple[Tensor, RouterStats | None]]:
        """Yield the final states and the router statistics of each depth of multi-token prediction.

        Args:
            embedded: the tokens as the first block reads them.
            hidden: what the last block made of them, before the norm.
            valids: for each depth to go to, which of its positions count in the router statistics.
        """
        normalised = self.settings.mtp is not None and self.settings.mtp.normalised
        hidden = self.norm(hidden) if normalised else hidden
        for depth, (module, valid) in enumerate(zip(self.mtp, valids, strict=False), start=1):
            hidden, later = hidden[:, :-1], embedded[:, depth:]
            own, _ = placed(_shortened(context, depth, valid), later, self.position)
            hidden, of_layer = through(
                module, self.activation_checkpointing, hidden, later, context=own
            )
            assert isinstance(module, MTPModule)
            final = module.norm(hidden)
            hidden = final if normalised else hidden
            yield final, of_layer

    def _mtp_losses(
        self, embedded: Tensor, hidden: Tensor, targets: Tensor, context: ForwardContext
    ) -> tuple[tuple[Tensor, ...], tuple[RouterStats, ...]]:
        """Return the losses of each depth that the text is long enough for, and its routers'."""
        depths = range(1, min(len(self.mtp), targets.shape[1] - 1) + 1)
        goals = [mtp_targets(targets, depth, context.documents) for depth in depths]
        chain = self._chain(embedded, hidden, context, [goal != IGNORE for goal in goals])
        losses, stats = [], []
        for goal, (final, of_layer) in zip(goals, chain, strict=True):
            layer = self.settings.layers + len(losses)
            losses.append(self._losses(final, goal))
            if of_layer is not None:
                stats.append(replace(of_layer, layer=layer))
        return tuple(losses), tuple(stats)

    def _logits(self, final: Tensor, grams: Tensor | None = None) -> Tensor:
        final, weight = self.head.operands(final, self.embedding)
        logits = self.head.linear(final, weight, self.head.bias)
        if grams is None or self.ngram is None:
            return logits
        return self.ngram.mixed(logits, grams)

    def _losses(self, final: Tensor, targets: Tensor, grams: Tensor | None = None) -> Tensor:
        """Return the loss of each final state, [B, T]."""
        if grams is not None:
            rows = zip(final, targets, grams, strict=True)
            return torch.stack([of_logits(self._logits(a, c), b) for a, b, c in rows])
        final, weight = self.head.operands(final, self.embedding)
        goals = targets.flatten()
        losses = self.head.cross_entropy(final.flatten(0, 1), weight, self.head.bias, goals)
        return losses.view(targets.shape)


def _shortened(context: ForwardContext, depth: int, valid: Tensor | None) -> ForwardContext:
    """Return the context of all tokens of a row but the last `depth`."""
    documents, positions = (
        None if each is None else each[:, :-depth]
        for each in (context.documents, context.positions)
    )
    lengths = context.lengths and tuple(max(each - depth, 0) for each in context.lengths)
    return ForwardContext(documents, positions, lengths, valid)
