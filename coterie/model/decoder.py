"""The decoder: embedding, blocks, head. One model for every system; systems differ in settings.

It knows nothing of optimizers, devices, precision, processes or files: those come from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coterie.foundation.errors import SettingsError, UserError, nearest
from coterie.foundation.settings import Settings
from coterie.model.attention import Attention, GroupedAttention
from coterie.model.blocks import Block, BlockPlan, BlockSettings
from coterie.model.cache import DecoderCache
from coterie.model.embedding import Embedding, FullEmbedding
from coterie.model.experts import LayerRouting, MixtureOfExpertsPart, RoutingMemory
from coterie.model.feedforward import Dense, FeedForward
from coterie.model.head import HeadSettings
from coterie.model.initialise import InitialSettings, initialise
from coterie.model.loss import IGNORE, summed_cross_entropy
from coterie.model.norm import Norm, RMSNorm
from coterie.model.position import Position, RotaryPosition, Rotation, Span


class DecoderSettings(Settings):
    """Settings of a decoder.

    `attention`, `feedforward` and `norm` hold for every layer. `blocks` names variations of them;
    `opening` lists the variations of the first layers, `pattern` is cycled over the others.
    """

    layers: int = Field(ge=1, description="number of blocks")
    width: int = Field(ge=1, description="channels of the residual stream")
    context: int = Field(ge=1, description="tokens of a training window")
    vocab_size: int | None = Field(
        default=None, ge=1, description="rows of the embedding; None: taken from the tokenizer"
    )
    embedding: Embedding = Field(default=FullEmbedding(), description="from tokens to vectors")
    embedding_norm: bool = Field(default=False, description="normalise the embedded tokens")
    position: Position = Field(
        default=RotaryPosition(), description="how tokens know where they stand"
    )
    norm: Norm = Field(default=RMSNorm(), description="normalisation of the stream")
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
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the stream's updates dropped"
    )
    initial: InitialSettings = Field(default=InitialSettings(), description="initial values")

    @model_validator(mode="after")
    def _fits_together(self) -> DecoderSettings:
        for name in (*self.opening, *self.pattern):
            if name not in self.blocks:
                raise ValueError(f"there is no block “{name}”; {nearest(name, self.blocks)}")
        if len(self.opening) > self.layers:
            raise ValueError(f"opening names {len(self.opening)} layers of {self.layers}")
        unused = set(self.blocks) - {*self.opening, *self.pattern}
        if unused:
            raise ValueError(f"neither opening nor pattern names block “{min(unused)}”")
        self.embedding.check(self.width)
        for plan in dict.fromkeys(self.plans()):
            plan.check(self.width)
            self.position.check(plan.attention.channels(self.width))
        return self

    def plans(self) -> tuple[BlockPlan, ...]:
        """Return every layer with its variations resolved, from the bottom up."""
        cycle = [
            self.pattern[i % len(self.pattern)] if self.pattern else None
            for i in range(self.layers - len(self.opening))
        ]
        return tuple(self._plan(name) for name in (*self.opening, *cycle))

    def _plan(self, name: str | None) -> BlockPlan:
        block = BlockSettings() if name is None else self.blocks[name]
        return BlockPlan(
            attention=block.attention or self.attention,
            feedforward=block.feedforward or self.feedforward,
            norm=block.norm or self.norm,
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

    def build(self, generator: torch.Generator | None = None) -> Decoder:
        """Return a decoder with initial values.

        Args:
            generator: where chance comes from; None: torch's global one.

        Raises:
            SettingsError: the vocabulary's size is not set.
        """
        decoder = Decoder(self)
        decoder.initialise(generator)
        return decoder


@dataclass(frozen=True)
class Output:
    """What a forward pass answers.

    Attributes:
        logits: [B, T, V]; None where targets were given.
        loss_sum: cross-entropy summed over valid targets, in nats and at least float32.
        valid_tokens: how many targets that are.
        routing: the account of each routed layer, from the bottom up.
    """

    logits: Float[Tensor, "B T V"] | None
    loss_sum: Float[Tensor, ""] | None
    valid_tokens: Int[Tensor, ""] | None
    routing: tuple[LayerRouting, ...]


class Decoder(nn.Module):
    """A causal language model.

    Attributes:
        settings: what it was built from.
        recompute: whether blocks keep only their inputs for the backward pass and are computed
            again there (Chen et al. 2016, arXiv:1604.06174). The second pass repeats the first
            one's routing, whatever rounding does, and enters no account.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        vocab_size, width = settings.known_vocab_size(), settings.width
        self.settings = settings
        self.recompute = False
        self.embedding = settings.embedding.build(vocab_size, width)
        self.embedding_norm = settings.norm.build(width) if settings.embedding_norm else None
        self.position = settings.position.build(width, settings.context)
        self.blocks = nn.ModuleList(
            Block(plan, width, layer, settings.dropout)
            for layer, plan in enumerate(settings.plans())
        )
        self.norm = settings.norm.build(width)
        self.head = settings.head.build(vocab_size, width)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; without a generator from torch's global one."""
        initialise(self, self.settings.initial, self.settings.layers, generator)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"] | None = None,
        *,
        cache: DecoderCache | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
        last: int | None = None,
        documents: Int[Tensor, "B T"] | None = None,
    ) -> Output:
        """Predict the token after each position.

        Args:
            tokens: ids.
            targets: the tokens to predict; −100 is left out. With them the loss is answered and
                no logits.
            cache: the past of these texts; the tokens become part of it.
            valid: tokens that count in the routers' accounts; by default those with a target.
            last: answer the logits of so many last positions only.
            documents: the document of each token, where rows hold several, each in one piece: no
                token sees another document, and positions begin anew with each.

        Raises:
            UserError: the text is longer than the positions the model knows, or documents are given
                together with a cache.
        """
        if documents is not None and cache is not None:
            raise UserError("Rows of several documents cannot be read through a cache.")
        if valid is None and targets is not None:
            valid = targets != IGNORE
        span = self._span(tokens, cache, documents)
        hidden = self._embed(tokens, cache, span)
        rotate = self.position.rotation(span)
        hidden, routing = self._read(hidden, rotate, cache, documents, valid)
        if cache is not None:
            cache.extend(tokens)
        if targets is None and last is not None:
            hidden = hidden[:, -last:]
        hidden, weight = self.head.operands(self.norm(hidden), self.embedding)
        if targets is None:
            return Output(F.linear(hidden, weight, self.head.bias), None, None, routing)
        flat = targets.flatten()
        loss = summed_cross_entropy(hidden.flatten(0, 1), weight, self.head.bias, flat)
        return Output(None, loss, (flat != IGNORE).sum(), routing)

    def _span(self, tokens: Tensor, cache: DecoderCache | None, documents: Tensor | None) -> Span:
        """Return the positions of the tokens; they begin anew with each document."""
        start = 0 if cache is None else cache.length
        at = None if documents is None else positions_in_documents(documents)
        return Span(start, tokens.shape[1], tokens.device, at)

    def _embed(self, tokens: Tensor, cache: DecoderCache | None, span: Span) -> Tensor:
        """Return the residual stream at the bottom."""
        lookback = self.embedding.lookback
        recent = cache.recent_tokens(lookback) if cache is not None and lookback else None
        hidden = self.embedding(tokens, recent)
        added = self.position.embed(span)
        if added is not None:
            hidden = hidden + added
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        if self.settings.dropout and self.training:
            hidden = F.dropout(hidden, self.settings.dropout)
        return hidden

    def _read(
        self,
        hidden: Tensor,
        rotate: Rotation | None,
        cache: DecoderCache | None,
        documents: Tensor | None,
        valid: Tensor | None,
    ) -> tuple[Tensor, tuple[LayerRouting, ...]]:
        """Send the stream through all blocks; return it and the accounts."""
        again = self.recompute and cache is None and torch.is_grad_enabled()
        accounts = []
        for layer, block in enumerate(self.blocks):
            part = None if cache is None else cache.layers[layer]
            if again:
                memory = RoutingMemory()
                hidden, account = checkpoint(
                    block, hidden, rotate, part, documents, valid, memory, use_reentrant=False
                )
            else:
                hidden, account = block(hidden, rotate, part, documents, valid)
            if account is not None:
                accounts.append(account)
        return hidden, tuple(accounts)


def positions_in_documents(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return each token's position in its own document; documents are runs of one number."""
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return at - at.where(begins, 0).cummax(dim=1).values


def routed_layers(decoder: Decoder) -> dict[int, MixtureOfExpertsPart]:
    """Return the routed feed-forward layers of a decoder by their index."""
    parts = ((layer, block.feedforward) for layer, block in enumerate(decoder.blocks))
    return {layer: part for layer, part in parts if isinstance(part, MixtureOfExpertsPart)}


def update_balance(decoder: Decoder, loads: Mapping[int, Int[Tensor, " E"]]) -> None:
    """Let each layer's balance learn from a whole optimizer step; call it once after each.

    Args:
        decoder: the model.
        loads: valid (token, expert) pairs of each expert by layer, summed over micro-batches and
            processes.
    """
    layers = routed_layers(decoder)
    for layer, load in loads.items():
        layers[layer].balance.update(load)


def selection_biases(decoder: Decoder) -> dict[int, Float[Tensor, " E"]]:
    """Return the selection bias of each layer that has one; later updates do not change it."""
    biases = {i: part.balance.selection_bias for i, part in routed_layers(decoder).items()}
    return {layer: bias.detach().clone() for layer, bias in biases.items() if bias is not None}
