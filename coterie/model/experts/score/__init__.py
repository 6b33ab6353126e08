"""Scores: how router logits become the weight of each expert, a closed union."""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.score.sigmoid import SigmoidScore
from coterie.model.experts.score.softmax import SoftmaxScore

Score = Annotated[SoftmaxScore | SigmoidScore, union(SoftmaxScore, SigmoidScore)]
