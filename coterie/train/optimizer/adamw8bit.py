"""AdamW whose moments are bytes: `torchao`'s, a scale for each 256 of them (arXiv:2110.02861).

torchao compiles its step, which takes a compiler and minutes; here it runs operator by operator.
That holds 53 bytes for each value it works on, so parameters, packed experts too, are given to it
as pieces of flat memory. Pieces end between scales and change nothing. A parameter of fewer than
4,096 values, and what is left beyond the last 256, keep moments of their own type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from coterie.foundation.errors import require
from coterie.train.optimizer.adamw import AdamSettings
from coterie.train.optimizer.groups import RoleParameter, group_by_role
from coterie.train.sketch import Shape

_PREFIX = "adamw8bit"
_BLOCK = 256  # values with one scale, torchao's own
_LEAST = 4096  # values of the smallest parameter that torchao keeps as bytes
_PIECE = 1 << 17  # values; the last piece of a parameter has up to twice as many
_TABLE = 4 * 256  # bytes of the numbers that codes stand for, which every state holds
_WORKING = 53  # bytes per value of what torchao's step makes on its way (by torch's profiler)
_MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW8bit(AdamSettings):
    """AdamW with moments of 8 bits, a quarter of the memory; needs the extra `torchao`."""

    kind: Literal["adamw8bit"] = "adamw8bit"

    def build(self, parameters: Sequence[RoleParameter]) -> AdamW8bitOptimizer | _Planned:
        """Return the optimizer of these parameters.

        Raises:
            MissingExtraError: `torchao` is not installed.
        """
        if any(isinstance(each.tensor, Shape) for each in parameters):
            return _Planned(parameters, self)  # torchao would make codes that are real
        return AdamW8bitOptimizer(parameters, self)

    def state_bytes(self, parameters: Sequence[RoleParameter]) -> int:
        """Return the memory of codes, scales, tables and whole numbers, in bytes."""
        total = 0
        for parameter in parameters:
            quantised, rest = _cuts(parameter.tensor.numel())
            values = sum(quantised)
            total += 2 * (values + 4 * values // _BLOCK + _TABLE * len(quantised))
            total += 2 * sum(rest) * parameter.tensor.element_size()
        return total


class AdamW8bitOptimizer:
    """`torchao.optim.AdamW8bit` over pieces of parameters."""

    def __init__(self, parameters: Sequence[RoleParameter], settings: AdamW8bit) -> None:
        self.learning_rate = settings.learning_rate
        groups = group_by_role(parameters, settings)
        self._peaks = [group.learning_rate for group in groups]
        cut = [[_Cut(member) for member in group.members] for group in groups]
        self._cut = [each for members in cut for each in members]
        self._optimizer = _torchao("torchao.optim").AdamW8bit(
            [
                {"params": [piece for each in members for piece in each.pieces],
                 "lr": group.learning_rate, "weight_decay": group.weight_decay}
                for group, members in zip(groups, cut, strict=True)
            ],
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            block_size=_BLOCK,
        )  # fmt: skip

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"].fill_(peak * multiplier)
        for each in self._cut:
            each.take_gradient()
        with torch.compiler.set_stance("force_eager"):
            self._optimizer.step()
        for each in self._cut:
            each.drop_gradient()

    def state(self) -> dict[str, Tensor]:
        """Return codes, scales, whole moments and counts by parameter name, in one piece each."""
        state: dict[str, Tensor] = {}
        for each in self._cut:
            held: list[dict[str, Any]] = [
                self._optimizer.state.get(piece, {}) for piece in each.pieces
            ]
            if not held[0]:
                continue  # before the first step
            state[f"{_PREFIX}.{each.name}.step"] = held[0]["step"]
            for moment in _MOMENTS:
                coded = [own[moment] for own in held[: each.quantised]]
                parts = {
                    "codes": [one.codes for one in coded],
                    "scale": [one.scale for one in coded],
                    "rest": [own[moment] for own in held[each.quantised :]],
                }
                for part, tensors in parts.items():
                    if tensors:
                        state[f"{_PREFIX}.{each.name}.{moment}_{part}"] = torch.cat(tensors)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take the moments back; return the keys that were used."""
        used: set[str] = set()
        coded = _torchao("torchao.optim.subclass_8bit").OptimState8bit
        for each in self._cut:
            prefix = f"{_PREFIX}.{each.name}."
            sizes = {"step": torch.Size(), **each.state_shapes()}
            given = {key: state[prefix + key] for key in sizes if prefix + key in state}
            if {key: value.shape for key, value in given.items()} != sizes:
                continue
            parts = {key: each.split(key, value) for key, value in given.items() if key != "step"}
            for index, piece in enumerate(each.pieces):
                own: dict[str, Any] = {"step": given["step"].clone()}
                self._optimizer.state[piece] = own
                for moment in _MOMENTS:
                    if index >= each.quantised:
                        rest = parts[f"{moment}_rest"][index - each.quantised]
                        own[moment] = rest.to(piece.device, copy=True)
                        continue
                    own[moment] = coded.zeros(
                        piece.shape, moment == "exp_avg", _BLOCK, piece.device, piece.dtype
                    )
                    own[moment].codes.copy_(parts[f"{moment}_codes"][index])
                    own[moment].scale.copy_(parts[f"{moment}_scale"][index])
            used.update(prefix + key for key in sizes)
        return used


class _Cut:
    """A parameter as pieces of its flat memory, those whose moments are bytes before the rest."""

    def __init__(self, parameter: RoleParameter) -> None:
        self.name, self._tensor = parameter.name, parameter.tensor
        quantised, rest = _cuts(parameter.tensor.numel())
        self.quantised, self._sizes = len(quantised), [*quantised, *rest]
        self.pieces = list(parameter.tensor.detach().view(-1).split(self._sizes))

    def state_shapes(self) -> dict[str, torch.Size]:
        """Return the shape of each part of the moments, as they are kept."""
        values, rest = (sum(each) for each in _cuts(self._tensor.numel()))
        sizes = {"codes": values, "scale": values // _BLOCK, "rest": rest}
        return {
            f"{moment}_{part}": torch.Size([size])
            for moment in _MOMENTS
            for part, size in sizes.items()
            if size
        }

    def split(self, key: str, value: Tensor) -> Sequence[Tensor]:
        """Return a kept part as those of the pieces."""
        if key.endswith("_rest"):
            return value.split(self._sizes[self.quantised :])
        per_code = _BLOCK if key.endswith("_scale") else 1
        return value.split([size // per_code for size in self._sizes[: self.quantised]])

    def take_gradient(self) -> None:
        """Hand each piece its part of the parameter's gradient, without copying."""
        gradient = self._tensor.grad
        if gradient is not None:
            parts = gradient.reshape(-1).split(self._sizes)
            for piece, part in zip(self.pieces, parts, strict=True):
                piece.grad = part

    def drop_gradient(self) -> None:
        """Let go of the gradient, whose memory is the parameter's."""
        for piece in self.pieces:
            piece.grad = None


class _Planned:
    """An optimizer of parameters without memory: its step holds what a real one would."""

    def __init__(self, parameters: Sequence[RoleParameter], settings: AdamW8bit) -> None:
        self.learning_rate = settings.learning_rate
        self._held = settings.state_bytes(parameters)
        pieces = [size for each in parameters for part in _cuts(each.tensor.numel())
                  for size in part]  # fmt: skip
        self._working = _WORKING * max(pieces, default=0)

    def step(self, step: int, multiplier: float) -> None:
        """Hold the state and what the largest piece needs on its way."""
        torch.empty(self._held + self._working, dtype=torch.uint8, device="meta")

    def state(self) -> dict[str, Tensor]:
        """Return nothing: there are no numbers."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Use nothing."""
        return set()


def _cuts(values: int) -> tuple[list[int], list[int]]:
    """Return the sizes of pieces whose moments are bytes, and of the rest."""
    whole = values - values % _BLOCK if values >= _LEAST else 0
    full = max(whole // _PIECE - 1, 0)
    quantised = [_PIECE] * full + [whole - full * _PIECE] * (whole > 0)
    return quantised, [values - whole] * (values > whole)


def _torchao(module: str) -> ModuleType:
    """Import a part of torchao, which warns of kernels it cannot load and that are not used."""
    logging.disable(logging.WARNING)
    try:
        return require(module, "torchao")
    finally:
        logging.disable(logging.NOTSET)
