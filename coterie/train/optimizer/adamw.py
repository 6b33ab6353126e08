"""AdamW: Adam with decoupled weight decay, in torch's fused form, with a rate per role.

Loshchilov & Hutter 2019, arXiv:1711.05101. State is read and written by parameter name, so that a
checkpoint does not depend on the order in which groups were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from coterie.train.optimizer.groups import (
    Decayed,
    Layerwise,
    RoleParameter,
    RoleRates,
    group_by_role,
)

_PREFIX = "adamw"


class AdamSettings(Layerwise):
    """What AdamW is told, however its moments are kept."""

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    learning_rates: RoleRates = {}
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="decay of the second moment")
    epsilon: float = Field(default=1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(default=0.1, ge=0, description="decoupled, times the rate")
    decayed: Decayed = ("matrix", "router", "head")

    def flops(self, parameters: Sequence[RoleParameter]) -> float:
        """Return the operations of the matrix products of one step: there are none."""
        return 0.0


class AdamW(AdamSettings):
    """AdamW over all parameters; the defaults suit a small model trained from nothing."""

    kind: Literal["adamw"] = "adamw"

    def build(self, parameters: Sequence[RoleParameter]) -> AdamWOptimizer:
        """Return the optimizer of these parameters."""
        return AdamWOptimizer(parameters, self)

    def moves_whole(self, parameter: RoleParameter) -> bool:
        """Each number is moved by itself."""
        return False

    def state_bytes(self, parameters: Sequence[RoleParameter]) -> int:
        """Return the memory of the two moments of each parameter, in bytes."""
        return sum(2 * p.tensor.numel() * p.tensor.element_size() for p in parameters)


class AdamWOptimizer:
    """`torch.optim.AdamW` behind the small interface that the step needs.

    Attributes:
        inner: torch's own.
    """

    def __init__(self, parameters: Sequence[RoleParameter], settings: AdamW) -> None:
        self._names: dict[Tensor, str] = {each.tensor: each.name for each in parameters}
        self.learning_rate = settings.learning_rate
        groups = group_by_role(parameters, settings)
        self._peaks = [group.learning_rate for group in groups]
        self.inner = torch.optim.AdamW(
            [
                {"params": group.tensors, "lr": group.learning_rate,
                 "weight_decay": group.weight_decay}
                for group in groups
            ],
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,  # one kernel for all parameters; runs on CPU, CUDA and MPS
        )  # fmt: skip

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        self.set_rates(multiplier)
        self.inner.step()

    def set_rates(self, multiplier: float) -> None:
        """Set the rates of the next step."""
        for group, peak in zip(self.inner.param_groups, self._peaks, strict=True):
            group["lr"] = peak * multiplier

    def state(self) -> dict[str, Tensor]:
        """Return the moments and counts by parameter name; empty before the first step."""
        return {
            f"{_PREFIX}.{self._names[parameter]}.{part}": value
            for parameter, parts in self.inner.state.items()
            for part, value in parts.items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take the moments back; return the keys that were used."""
        used: set[str] = set()
        for parameter, name in self._names.items():
            prefix = f"{_PREFIX}.{name}."
            keys = {prefix + part: part for part in ("step", "exp_avg", "exp_avg_sq")}
            if not all(key in state for key in keys):
                continue
            self.inner.state[parameter] = {
                part: state[key].to(parameter.device, copy=True) for key, part in keys.items()
            }
            used.update(keys)
        return used
