"""The back end that is usually fastest for the sizes, the mask and the device."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model.attention.backends.blocked import BlockedFunction
from coterie.model.attention.backends.dense import DenseFunction
from coterie.model.attention.backends.interface import BackendFunction, BackendSettings, Call
from coterie.model.attention.backends.sdpa import SDPAFunction

_SHORT = 128
"""Texts up to so many tokens go through plain products on the CPU; measured crossover 128–256."""
_SHORT_UNLIKE = 256
"""The same where values have other channels than keys and gradients are asked for."""
_SHARE = 0.5
"""Elsewhere tiles are taken where they look at less than this share of all pairs."""
_LARGE = 1 << 26
"""From so many pairs on, tiles are taken wherever there is a mask: it alone would fill 64 MiB."""


class AutoBackend(BackendSettings):
    """Settings of the automatic choice."""

    kind: Literal["auto"] = "auto"

    def build(self) -> "AutoFunction":
        return _FUNCTION


class AutoFunction(BackendFunction):
    """Chooses by sizes, mask and device among those that run everywhere and refuse nothing."""

    def __init__(self) -> None:
        self._dense = DenseFunction()
        self._sdpa = SDPAFunction()
        self._blocked = BlockedFunction()

    def scores(self, call: Call) -> int:
        return self._blocked.scores(call)

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        queries, keys = call.query.shape[2], call.keys.shape[2]
        on_cpu = call.query.device.type == "cpu"
        unlike = call.keys.shape[3] != call.values.shape[3] and call.differentiated
        short = on_cpu and keys <= (_SHORT_UNLIKE if unlike else _SHORT)
        if call.open or (call.causal and queries == keys and not short):
            return self._sdpa(call)
        if short:
            return self._dense(call)
        if queries > 1 and on_cpu and not torch.compiler.is_compiling():
            return self._blocked(call)
        # Elsewhere, planning for documents would wait for the device.
        if queries > 1 and (on_cpu or not call.geometry.per_row):
            plan = self._blocked.plan(call)
            if plan.share < _SHARE or queries * keys >= _LARGE:
                return self._blocked.compute(plan)
        return self._sdpa(call)


_FUNCTION = AutoFunction()
