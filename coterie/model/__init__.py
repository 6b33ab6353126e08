"""The decoder, written for one device: settings build it, `count` counts it.

Reading order: decoder, blocks, attention, experts, then embedding, position, norm, head, loss.
"""

from coterie.model.additive import StructureEmbedding
from coterie.model.attention import Attention
from coterie.model.block_layout import BlockLayout
from coterie.model.blocks import Block, BlockSettings
from coterie.model.cache import AttentionCache, CacheSpec, DecoderCache, SummaryCache
from coterie.model.count import Counts, TreeRow, count
from coterie.model.decoder import Decoder, DecoderSettings
from coterie.model.dropout import Dropout
from coterie.model.embedding import Embedding
from coterie.model.experts import Balance, ExpertPack, Kernel, RouterSettings, RouterStats
from coterie.model.feedforward import MLP
from coterie.model.feedforward.dense import Dense
from coterie.model.feedforward.layer import FeedForward
from coterie.model.head import HeadSettings
from coterie.model.heads import (
    MTPSettings,
    PooledSettings,
    ValueSettings,
    mtp_targets,
)
from coterie.model.initialise import InitialSettings
from coterie.model.norm import Norm
from coterie.model.output import Output
from coterie.model.part import Part, Role, parameter_roles
from coterie.model.position import Position
from coterie.model.routed import routed_layers, selection_biases, update_balance

__all__ = [
    "MLP",
    "Attention",
    "AttentionCache",
    "Balance",
    "Block",
    "BlockLayout",
    "BlockSettings",
    "CacheSpec",
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
    "Kernel",
    "MTPSettings",
    "Norm",
    "Output",
    "Part",
    "PooledSettings",
    "Position",
    "Role",
    "RouterSettings",
    "RouterStats",
    "StructureEmbedding",
    "SummaryCache",
    "TreeRow",
    "ValueSettings",
    "count",
    "mtp_targets",
    "parameter_roles",
    "routed_layers",
    "selection_biases",
    "update_balance",
]
