"""The decoder, written for one device: settings build it, `count` counts it.

Reading order: decoder, blocks, attention, experts, then embedding, position, norm, head, loss.
"""

from coterie.model.attention import Attention
from coterie.model.blocks import Block, BlockSettings
from coterie.model.cache import AttentionCache, DecoderCache, Keep, SummaryCache
from coterie.model.decoder import (
    Decoder,
    DecoderSettings,
    Output,
    routed_layers,
    selection_biases,
    update_balance,
)
from coterie.model.embedding import Embedding
from coterie.model.experts import Balance, Body, Compute, ExpertPack, LayerRouting, RouterSettings
from coterie.model.feedforward import Dense, FeedForward
from coterie.model.head import HeadSettings
from coterie.model.initialise import InitialSettings
from coterie.model.loss import IGNORE
from coterie.model.norm import Norm
from coterie.model.part import Part, Role, parameter_roles
from coterie.model.position import Position
from coterie.model.summary import Counts, TreeRow, count

__all__ = [
    "IGNORE",
    "Attention",
    "AttentionCache",
    "Balance",
    "Block",
    "BlockSettings",
    "Body",
    "Compute",
    "Counts",
    "Decoder",
    "DecoderCache",
    "DecoderSettings",
    "Dense",
    "Embedding",
    "ExpertPack",
    "FeedForward",
    "HeadSettings",
    "InitialSettings",
    "Keep",
    "LayerRouting",
    "Norm",
    "Output",
    "Part",
    "Position",
    "Role",
    "RouterSettings",
    "SummaryCache",
    "TreeRow",
    "count",
    "parameter_roles",
    "routed_layers",
    "selection_biases",
    "update_balance",
]
