"""The back end that was fastest when tried: each situation is timed once, on the device itself.

A situation is what the time depends on: sizes (lengths rounded up to a power of two), type, device,
mask, and whether rows differ, weights are dropped and gradients asked for. The winners can be read
from `MeasuredBackend().build().chosen`. Back ends differ in rounding, so two runs that measure
differently are equal only up to that.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import MissingExtraError
from coterie.model.attention.backends.blocked import BlockedBackend
from coterie.model.attention.backends.dense import DenseBackend
from coterie.model.attention.backends.flash import FlashBackend
from coterie.model.attention.backends.flex import FlexBackend
from coterie.model.attention.backends.interface import BackendFunction, BackendSettings, Call
from coterie.model.attention.backends.sdpa import SDPABackend
from coterie.model.attention.mask import Mask
from coterie.model.uncompiled import uncompiled

_ROUNDS = 3
_MOST_SCORES = 1 << 27
"""Back ends that would hold more scores at once than this are not tried: half a GiB in float32."""


class MeasuredBackend(BackendSettings):
    """Settings of the choice by measurement."""

    kind: Literal["measured"] = "measured"

    def build(self) -> "MeasuredFunction":
        """Return the function; there is one, so that all layers share what was measured."""
        return _FUNCTION


@dataclass(frozen=True)
class Situation:
    """What the time of a call depends on; lengths are rounded up to a power of two."""

    batch: int
    heads: int
    key_heads: int
    queries: int
    keys: int
    channels: int
    value_channels: int
    dtype: torch.dtype
    device: str
    mask: Mask
    per_row: bool
    dropout: bool
    gradients: bool

    @classmethod
    def of(cls, call: Call) -> "Situation":
        """Return the situation of a call."""
        batch, heads, queries, channels = call.query.shape
        _, key_heads, keys, value_channels = call.values.shape
        return cls(
            batch, heads, key_heads, _rounded(queries), _rounded(keys), channels, value_channels,
            call.query.dtype, str(call.query.device), call.mask, call.geometry.per_row,
            call.dropout > 0, call.differentiated,
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the seconds of every back end that was tried.

    A back end that could not be tried because it would hold too many scores is not listed.
    """

    kind: str
    seconds: Mapping[str, float]


class MeasuredFunction:
    """Times whatever can compute a call once for each situation, and remembers the fastest.

    Attributes:
        chosen: what was chosen in each situation so far.

    Args:
        candidates: back ends by kind; None: all that can be built here.
    """

    def __init__(
        self,
        candidates: Mapping[str, BackendFunction] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.chosen: dict[Situation, Choice] = {}
        self._candidates = candidates
        self._clock = clock

    def refuses(self, call: Call) -> None:
        """Refuse nothing: some candidate can compute every call."""

    def scores(self, call: Call) -> int:
        return _MOST_SCORES

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        """Compute it; compiled programs stop here and go on behind, for clocks do not compile."""
        return self._compute(call)

    @uncompiled
    def _compute(self, call: Call) -> Tensor:
        if self._candidates is None:
            self._candidates = available()
        situation = Situation.of(call)
        choice = self.chosen.get(situation)
        if choice is None:
            choice = self.chosen[situation] = self._measure(call)
        return self._candidates[choice.kind](call)

    def _measure(self, call: Call) -> Choice:
        """Time every candidate that can; the calls are copies without dropout and without past."""
        assert self._candidates is not None
        gradients = call.differentiated
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            inputs = [each.detach().clone() for each in (call.query, call.keys, call.values)]
            query, keys, values = (each.requires_grad_(gradients) for each in inputs)
            copy = replace(call, query=query, keys=keys, values=values, dropout=0.0)
            able = {
                kind: function
                for kind, function in self._candidates.items()
                if function.refuses(call) is None
            }
            held = {kind: function.scores(call) for kind, function in able.items()}
            most = max(_MOST_SCORES, min(held.values()))
            able = {kind: function for kind, function in able.items() if held[kind] <= most}
            for function in able.values():
                self._seconds(function, copy)  # caches, kernels and memory are made ready
            seconds = dict.fromkeys(able, float("inf"))
            for _ in range(_ROUNDS):  # in turns, so that a busy moment meets all of them
                for kind, function in able.items():
                    seconds[kind] = min(seconds[kind], self._seconds(function, copy))
        return Choice(min(seconds, key=seconds.__getitem__), seconds)

    def _seconds(self, function: BackendFunction, call: Call) -> float:
        """Return how long a call takes, its gradients included where they are asked for."""
        _synchronise(call.query.device)
        begin = self._clock()
        out = function(call)
        if out.requires_grad:
            torch.autograd.grad(out, (call.query, call.keys, call.values), torch.ones_like(out))
        _synchronise(call.query.device)
        return self._clock() - begin


_FUNCTION = MeasuredFunction()


def available() -> dict[str, BackendFunction]:
    """Return the back ends that can be built here, by kind."""
    found: dict[str, BackendFunction] = {
        "sdpa": SDPABackend().build(),
        "blocked": BlockedBackend().build(),
        "dense": DenseBackend().build(),
        "flex": FlexBackend().build(),
    }
    try:
        found["flash"] = FlashBackend().build()
    except MissingExtraError:
        return found
    return found


def _rounded(length: int) -> int:
    return 1 << (length - 1).bit_length()


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
