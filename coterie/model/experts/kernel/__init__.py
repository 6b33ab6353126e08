"""Expert kernels: how rows go through packed experts, a closed union.

All give the same result; which is fastest depends on the machine and the sizes. Sorting tokens by
expert and adding up what the experts return is the dispatcher's business.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.kernel.auto import AutoKernel
from coterie.model.experts.kernel.gather import GatherKernel
from coterie.model.experts.kernel.grouped import GroupedKernel
from coterie.model.experts.kernel.interface import ExpertKernel
from coterie.model.experts.kernel.loop import LoopKernel, PaddedKernel
from coterie.model.experts.kernel.measured import MeasuredKernel, measurements
from coterie.model.experts.kernel.triton import TritonKernel

Kernel = Annotated[
    AutoKernel | LoopKernel | GroupedKernel | PaddedKernel | TritonKernel | GatherKernel
    | MeasuredKernel,
    union(AutoKernel, LoopKernel, GroupedKernel, PaddedKernel, TritonKernel, GatherKernel,
          MeasuredKernel),
]  # fmt: skip
