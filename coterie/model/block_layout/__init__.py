"""How a block lays out its two branches, attention and feed-forward: a closed union.

A block layout takes the stream and the branches and returns the new stream. It decides what each
branch reads and how their outputs are added, not what they compute.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.block_layout.interface import Branches
from coterie.model.block_layout.parallel import Parallel
from coterie.model.block_layout.sequential import Sequential

BlockLayout = Annotated[Sequential | Parallel, union(Sequential, Parallel)]
