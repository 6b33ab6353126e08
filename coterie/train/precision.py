"""Devices and precisions: which one a run computes in, and float16's loss scale.

Weights, moments and losses stay float32. With bfloat16 or float16 the products run under autocast.
bfloat16 needs no scale; float16 does, since small gradients would vanish (Micikevicius et al. 2018,
arXiv:1710.03740). `torch.amp.GradScaler` decides per optimizer whether to step; a step here moves
two of them and must take both or none, hence the few lines of `LossScale`.
"""

from __future__ import annotations

import contextlib
import platform
from dataclasses import dataclass
from typing import Any, Literal

import torch

from coterie.foundation.errors import SettingsError

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A device and the type that its matrix products run in."""

    device: torch.device
    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of the matrix products."""
        return _DTYPES[self.name]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        if self.name == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def loss_scale(self) -> LossScale | None:
        """Return a fresh loss scale where the precision needs one."""
        return LossScale() if self.name == "float16" else None


class LossScale:
    """A factor on the loss: halved when gradients overflow, doubled after a long time without.

    A step's gradients are divided by the scale that its loss was multiplied with; only then does it
    `update` the scale, for the next step.
    """

    def __init__(self, scale: float = 2.0**16, growth_interval: int = 2000) -> None:
        self.scale = scale
        self._growth_interval = growth_interval
        self._good_steps = 0

    def update(self, *, finite: bool) -> None:
        """Take note, at a step's end, of whether its gradients were finite."""
        if not finite:
            self.scale, self._good_steps = self.scale / 2.0, 0
            return
        self._good_steps += 1
        if self._good_steps >= self._growth_interval:
            self.scale, self._good_steps = self.scale * 2.0, 0

    @property
    def exhausted(self) -> bool:
        """Whether the scale cannot be halved: then gradients that overflow are not its fault."""
        return self.scale < 2.0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint must keep."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load_state(self, state: dict[str, float]) -> None:
        """Take the state back from a checkpoint."""
        self.scale, self._good_steps = state["scale"], int(state["good_steps"])


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        SettingsError: the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"train.device={name} cannot be used here: {str(error).splitlines()[0]}",
            hint="Use train.device=auto, or cpu; `coterie doctor` lists what this machine has.",
        ) from error
    return device


def _has_half_units() -> bool:
    """Whether this CPU multiplies 16-bit numbers in anything but single steps."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability() or platform.machine() == "arm64"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in units of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _has_half_units()


def resolve_precision(precision: PrecisionName, device: torch.device) -> Precision:
    """Return the precision to use, chosen for the device if it is `auto`."""
    if precision != "auto":
        slow = device.type == "cpu" and precision != "float32" and not _has_half_units()
        reason = "as asked for; this CPU has no units for it, so it is very slow here"
        return Precision(device, precision, reason if slow else "as asked for")
    if device.type == "cuda":
        if has_bfloat16(device):
            return Precision(device, "bfloat16", "this GPU has bfloat16 matrix units")
        return Precision(device, "float16", "this GPU has no bfloat16 matrix units")
    if device.type == "cpu":
        return Precision(device, "float32", "nothing was measured")
    return Precision(device, "float32", f"the safe choice on {device.type}")
