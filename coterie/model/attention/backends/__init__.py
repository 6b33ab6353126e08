"""Back ends: what computes the products of attention, a closed union, one file each.

All take the same `Call` and agree with the dense one; which is fastest depends on the machine, the
sizes and the mask.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.attention.backends.auto import AutoBackend
from coterie.model.attention.backends.blocked import BlockedBackend
from coterie.model.attention.backends.dense import DenseBackend
from coterie.model.attention.backends.flash import FlashBackend
from coterie.model.attention.backends.flex import FlexBackend
from coterie.model.attention.backends.interface import BackendSettings, Call
from coterie.model.attention.backends.measured import MeasuredBackend
from coterie.model.attention.backends.sdpa import SDPABackend

Backend = Annotated[
    AutoBackend | MeasuredBackend | DenseBackend | SDPABackend | BlockedBackend | FlexBackend
    | FlashBackend,
    union(AutoBackend, MeasuredBackend, DenseBackend, SDPABackend, BlockedBackend, FlexBackend,
          FlashBackend),
]  # fmt: skip
