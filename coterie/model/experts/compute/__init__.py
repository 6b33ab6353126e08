"""Expert computation: how tokens go through packed experts, a closed union.

Each takes packs, tokens, their experts and gates, and returns every token's weighed sum. All give
the same result; which is fastest depends on the machine and the sizes.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.compute.auto import AutoCompute
from coterie.model.experts.compute.gather import GatherCompute
from coterie.model.experts.compute.grouped import GroupedCompute
from coterie.model.experts.compute.interface import Computation
from coterie.model.experts.compute.loop import LoopCompute
from coterie.model.experts.compute.measured import MeasuredCompute, SizeClass, measurements
from coterie.model.experts.compute.padded import PaddedCompute

Compute = Annotated[
    AutoCompute | LoopCompute | GroupedCompute | PaddedCompute | GatherCompute | MeasuredCompute,
    union(AutoCompute, LoopCompute, GroupedCompute, PaddedCompute, GatherCompute, MeasuredCompute),
]

__all__ = [
    "AutoCompute",
    "Computation",
    "Compute",
    "GatherCompute",
    "GroupedCompute",
    "LoopCompute",
    "MeasuredCompute",
    "PaddedCompute",
    "SizeClass",
    "measurements",
]
