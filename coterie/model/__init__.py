"""The decoder, written for one device: settings build it, `count` counts it.

Reading order: decoder, blocks, attention, experts, then embedding, position, norm, head, loss.
"""

from coterie.model.attention import Attention
from coterie.model.block_layout import BlockLayout
from coterie.model.cache import AttentionCache, CacheSpec
from coterie.model.count import Counts, count
from coterie.model.decoder import Decoder, DecoderSettings
from coterie.model.dropout import Dropout
from coterie.model.embedding import Embedding
from coterie.model.experts import Balance, ExpertPack, Kernel, RouterStats
from coterie.model.feedforward import Dense, FeedForward
from coterie.model.heads import mtp_targets
from coterie.model.initialise import InitialSettings
from coterie.model.mlp import MLP
from coterie.model.norm import Norm
from coterie.model.output import Output
from coterie.model.part import Part, Role, parameter_roles
from coterie.model.position import Position
from coterie.model.routed import routed_layers, selection_biases, update_balance
