"""How a block arranges its two branches, attention and feed-forward: a closed union.

An arrangement is handed the stream and the branches and answers the new stream. It decides what
each branch reads and how their answers are added; what the branches compute is not its business.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.arrangement.interface import ArrangementPart, Branches
from coterie.model.arrangement.parallel import Parallel
from coterie.model.arrangement.sequential import Sequential

Arrangement = Annotated[Sequential | Parallel, union(Sequential, Parallel)]

__all__ = ["Arrangement", "ArrangementPart", "Branches", "Parallel", "Sequential"]
