"""Attention: a closed union, one file per mathematical idea.

An attention module maps tokens [B, T, D] to [B, T, D], given how to turn queries and keys by
position and, when generating, its part of the cache. Its settings say what a cache must `keep` for
it.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.attention.grouped import GroupedAttention
from coterie.model.attention.latent_vectors import LatentVectorAttention
from coterie.model.attention.mla import LatentAttention

Attention = Annotated[
    GroupedAttention | LatentAttention | LatentVectorAttention,
    union(GroupedAttention, LatentAttention, LatentVectorAttention),
]
