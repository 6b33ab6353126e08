"""Back ends: what computes the products of attention, a closed union, one file each.

All take the same `Call` and agree with the dense one; which is fastest depends on the machine, the
sizes and the mask.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.attention.backends.auto import AutoBackend
from coterie.model.attention.backends.blocked import BlockedBackend
from coterie.model.attention.backends.dense import DenseBackend
from coterie.model.attention.backends.interface import BackendFunction, BackendSettings, Call
from coterie.model.attention.backends.sdpa import SDPABackend

Backend = Annotated[
    AutoBackend | DenseBackend | SDPABackend | BlockedBackend,
    union(AutoBackend, DenseBackend, SDPABackend, BlockedBackend),
]

__all__ = [
    "AutoBackend",
    "Backend",
    "BackendFunction",
    "BackendSettings",
    "BlockedBackend",
    "Call",
    "DenseBackend",
    "SDPABackend",
]
