"""The decoder, written for one device: settings build it, `count` counts it.

Reading order: decoder, blocks, attention, experts, then embedding, position, norm, head, loss.
"""

from coterie.model.arrangement import Arrangement
from coterie.model.attention import Attention
from coterie.model.blocks import Block, BlockSettings
from coterie.model.cache import AttentionCache, DecoderCache, Keep, SummaryCache
from coterie.model.decoder import Decoder, DecoderSettings
from coterie.model.dropout import Dropout
from coterie.model.embedding import Embedding
from coterie.model.embedding.structure import StructureSettings
from coterie.model.experts import Balance, Body, Compute, ExpertPack, LayerRouting, RouterSettings
from coterie.model.feedforward import Dense, FeedForward
from coterie.model.head import HeadSettings
from coterie.model.heads import (
    AheadLoss,
    AheadSettings,
    PooledSettings,
    ValueSettings,
    ahead_targets,
)
from coterie.model.initialise import InitialSettings
from coterie.model.norm import Norm
from coterie.model.output import Output
from coterie.model.part import Part, Role, parameter_roles
from coterie.model.position import Position
from coterie.model.routed import routed_layers, selection_biases, update_balance
from coterie.model.summary import Counts, TreeRow, count

__all__ = [
    "AheadLoss",
    "AheadSettings",
    "Arrangement",
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
    "Dropout",
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
    "PooledSettings",
    "Position",
    "Role",
    "RouterSettings",
    "StructureSettings",
    "SummaryCache",
    "TreeRow",
    "ValueSettings",
    "ahead_targets",
    "count",
    "parameter_roles",
    "routed_layers",
    "selection_biases",
    "update_balance",
]
