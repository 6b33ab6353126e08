"""The feed-forward layer of a block: dense, or a mixture of experts."""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts import MixtureOfExperts
from coterie.model.feedforward.dense import Dense

FeedForward = Annotated[Dense | MixtureOfExperts, union(Dense, MixtureOfExperts)]
