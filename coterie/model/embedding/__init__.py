"""From token ids to vectors: a closed union, one file per idea.

An embedding module maps tokens [B, T] to [B, T, D]. Its `lookback` says how many earlier tokens it
reads besides each token itself; when generating they come from the cache. `tied` turns the final
hidden states into what a head multiplies with the embedding's own matrix.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.embedding.factorised import FactorisedEmbedding
from coterie.model.embedding.full import FullEmbedding
from coterie.model.embedding.interface import EmbeddingPart
from coterie.model.embedding.ngram import NgramEmbedding

Embedding = Annotated[
    FullEmbedding | FactorisedEmbedding | NgramEmbedding,
    union(FullEmbedding, FactorisedEmbedding, NgramEmbedding),
]
