"""Additive embeddings: vectors added to the tokens' own before the first block, a closed union.

Each says of every token something that the token's id does not, such as where it stands between
tags. The decoder adds up what its parts return and hands each what it left in the cache.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.additive.interface import AdditivePart, AdditiveSettings
from coterie.model.additive.structure import StructureEmbedding

AdditiveEmbedding = Annotated[StructureEmbedding, union(StructureEmbedding)]
