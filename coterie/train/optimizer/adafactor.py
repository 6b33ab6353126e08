"""Adafactor: second moments kept as the outer product of a row and a column, steps relative to RMS.

Shazeer & Stern 2018, arXiv:1804.04235, without momentum, as `torch.optim.Adafactor` does it. With
ρ = min(learning rate, 1/√t), a parameter moves by ρ · max(min_scale, RMS(parameter)) · U, where U
is the gradient over the root of its estimated second moment, RMS(U) bounded by `clip_threshold`. A
matrix [m, n] costs m + n numbers of state in place of AdamW's 2 m n.

A packed tensor [experts, out, in] is that many matrices, a packed bias [experts, out] that many
vectors: each has its own scale, moments and threshold, so that packing changes nothing. torch by
itself would factor packed matrices one by one, but share scale and threshold among all of them, and
take a packed bias for a matrix.
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

_PREFIX = "adafactor"
_VECTORS = ("norm", "bias")  # roles whose last dimension alone is one parameter


class Adafactor(Layerwise):
    """Adafactor over all parameters: about half of AdamW's memory for weights and state."""

    kind: Literal["adafactor"] = "adafactor"
    learning_rate: float = Field(
        default=1e-2, gt=0, description="peak step, as a share of each parameter's RMS"
    )
    learning_rates: RoleRates = {}
    decay: float = Field(
        default=0.8, gt=0, le=1, description="the moments' β₂ at step t is 1 − t^−decay"
    )
    # torch squares it, and the square must be a normal float32.
    epsilon: float = Field(default=1e-16, ge=1.1e-19, description="the least root of a moment")
    min_scale: float = Field(default=1e-3, gt=0, description="the least RMS steps are relative to")
    clip_threshold: float = Field(default=1.0, ge=1, description="the largest RMS of U")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled, times the rate")
    decayed: Decayed = ("matrix", "router", "head")

    def build(self, parameters: Sequence[RoleParameter]) -> AdafactorOptimizer:
        """Return the optimizer of these parameters."""
        return AdafactorOptimizer(parameters, self)

    def state_bytes(self, parameters: Sequence[RoleParameter]) -> int:
        """Return the memory of rows, columns and vectors of second moments, in bytes."""
        return sum(
            shape.numel() * p.tensor.element_size()
            for p in parameters
            for shape in _state_shapes(p).values()
        )

    def flops(self, parameters: Sequence[RoleParameter]) -> float:
        """Return the operations of the matrix products of one step: next to none."""
        return 0.0


class AdafactorOptimizer:
    """`torch.optim.Adafactor` over single matrices and vectors."""

    def __init__(self, parameters: Sequence[RoleParameter], settings: Adafactor) -> None:
        self.learning_rate = settings.learning_rate
        groups = group_by_role(parameters, settings)
        self._peaks = [group.learning_rate for group in groups]
        packs = [[_Pack(member) for member in group.members] for group in groups]
        self._packs = [pack for group in packs for pack in group]
        self._optimizer = torch.optim.Adafactor(
            [
                {"params": [single for pack in members for single in pack.singles],
                 "lr": group.learning_rate, "weight_decay": group.weight_decay}
                for group, members in zip(groups, packs, strict=True)
            ],
            beta2_decay=-settings.decay,
            eps=(settings.epsilon, settings.min_scale),
            d=settings.clip_threshold,
        )  # fmt: skip

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * multiplier
        for pack in self._packs:
            pack.take_gradient()
        self._optimizer.step()
        for pack in self._packs:
            pack.drop_gradient()

    def state(self) -> dict[str, Tensor]:
        """Return moments and counts by parameter name, packed as the parameters are."""
        state: dict[str, Tensor] = {}
        for pack in self._packs:
            singles = [self._optimizer.state.get(single, {}) for single in pack.singles]
            if not singles[0]:
                continue  # before the first step
            state[f"{_PREFIX}.{pack.name}.step"] = singles[0]["step"]
            for part, shape in pack.state_shapes.items():
                stacked = torch.stack([single[part] for single in singles])
                state[f"{_PREFIX}.{pack.name}.{part}"] = stacked.view(shape)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take the moments back; return the keys that were used."""
        used: set[str] = set()
        for pack in self._packs:
            shapes = {"step": torch.Size(), **pack.state_shapes}
            given = {part: state.get(f"{_PREFIX}.{pack.name}.{part}") for part in shapes}
            if any(value is None or value.shape != shapes[part] for part, value in given.items()):
                continue
            for index, single in enumerate(pack.singles):
                own = {
                    part: value if part == "step" else value.view(len(pack.singles), -1)[index]
                    for part, value in given.items()
                    if value is not None
                }
                self._optimizer.state[single] = {
                    part: value.clone()  # torch counts steps on the CPU
                    if part == "step"
                    else value.to(single.device, copy=True).view(pack.single_shapes[part])
                    for part, value in own.items()
                }
            used.update(f"{_PREFIX}.{pack.name}.{part}" for part in shapes)
        return used


class _Pack:
    """A parameter as the separate matrices or vectors it holds, each a view of its memory."""

    def __init__(self, parameter: RoleParameter) -> None:
        self.name = parameter.name
        self._tensor = parameter.tensor
        self._shape = parameter.tensor.shape[-_dimensions(parameter) :]
        whole = parameter.tensor.detach().view(-1, *self._shape)
        self.singles = list(whole.unbind())
        self.state_shapes = _state_shapes(parameter)
        leading = parameter.tensor.ndim - len(self._shape)
        self.single_shapes = {part: size[leading:] for part, size in self.state_shapes.items()}

    def take_gradient(self) -> None:
        """Hand each single its part of the parameter's gradient, without copying."""
        gradient = self._tensor.grad
        if gradient is not None:
            for single, part in zip(
                self.singles, gradient.reshape(-1, *self._shape).unbind(), strict=True
            ):
                single.grad = part

    def drop_gradient(self) -> None:
        """Let go of the gradient, whose memory is the parameter's."""
        for single in self.singles:
            single.grad = None


def _dimensions(parameter: RoleParameter) -> int:
    """Return how many of the last dimensions make one matrix (2) or vector (1)."""
    return 1 if parameter.role in _VECTORS else min(2, parameter.tensor.ndim)


def _state_shapes(parameter: RoleParameter) -> dict[str, torch.Size]:
    """Return the shapes of a parameter's second moments, leading dimensions kept."""
    shape = parameter.tensor.shape
    if _dimensions(parameter) == 1:
        return {"variance": shape}
    return {
        "row_var": torch.Size((*shape[:-1], 1)),
        "col_var": torch.Size((*shape[:-2], 1, shape[-1])),
    }
