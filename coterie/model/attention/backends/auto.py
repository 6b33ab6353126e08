"""The back end that is usually fastest for the sizes, the mask and the device."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from coterie.model.attention.backends.blocked import BlockedBackend, BlockedFunction
from coterie.model.attention.backends.dense import DenseBackend
from coterie.model.attention.backends.interface import BackendFunction, BackendSettings, Call
from coterie.model.attention.backends.sdpa import SDPABackend

_SHORT = 128
"""Texts up to so many tokens go through plain products on the CPU; measured crossover 128–256."""


class AutoBackend(BackendSettings):
    """Settings of the automatic choice."""

    kind: Literal["auto"] = "auto"

    def build(self) -> AutoFunction:
        """Return the function."""
        return _FUNCTION


class AutoFunction:
    """Chooses by sizes, mask and device."""

    def __init__(self) -> None:
        self._dense = DenseBackend().build()
        self._sdpa = SDPABackend().build()
        self._blocked: BlockedFunction = BlockedBackend().build()

    def refuses(self, call: Call) -> None:
        """Refuse nothing."""

    def choose(self, call: Call) -> BackendFunction:
        """Return the back end for a call."""
        if call.open:
            return self._sdpa
        if call.query.device.type == "cpu" and call.keys.shape[2] <= _SHORT:
            return self._dense
        if self._blocked.worth(call):
            return self._blocked
        return self._sdpa

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        """Compute it."""
        return self.choose(call)(call)


_FUNCTION = AutoFunction()
