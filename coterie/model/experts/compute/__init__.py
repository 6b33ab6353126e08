"""Expert computation: how sorted rows go through packed experts, a closed union.

Each takes a pack, rows sorted by expert and how many rows each expert has, and returns the rows'
outputs in the same order. All give the same result; which is fastest depends on the machine and the
sizes.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.compute.auto import AutoCompute
from coterie.model.experts.compute.grouped import GroupedCompute
from coterie.model.experts.compute.loop import LoopCompute
from coterie.model.experts.compute.padded import PaddedCompute

Compute = Annotated[
    AutoCompute | LoopCompute | GroupedCompute | PaddedCompute,
    union(AutoCompute, LoopCompute, GroupedCompute, PaddedCompute),
]

__all__ = ["AutoCompute", "Compute", "GroupedCompute", "LoopCompute", "PaddedCompute"]
