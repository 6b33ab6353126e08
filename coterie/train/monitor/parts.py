"""How large gradients and updates are, part by part: embedding, attention, experts, router, ….

A part that learns a hundred times as fast as the others, or not at all, shows here long before the
loss tells. Only read, at one step in many, so that training is the same with it and without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from coterie.train.events import PartMeasured
from coterie.train.optimizer import RoleParameter

_SAMPLED = 1 << 16
"""Most values of a tensor whose movement is measured, evenly spread: a copy of all weights would
cost as much memory as the gradients."""
_PLACES = ("attention", "experts", "shared", "mlp")


def part_of(parameter: RoleParameter) -> str:
    """Return the part that a parameter counts to: its role, or for a matrix where it stands."""
    if parameter.role != "matrix":
        return parameter.role
    path = parameter.name.split(".")
    return next((place for place in _PLACES if place in path), "projection")


class PartWatch:
    """Measures gradients and updates of a decoder's parts around the optimizer's move."""

    def __init__(
        self,
        parameters: Sequence[RoleParameter],
        norms: Callable[[Tensor], Tensor] = lambda norms: norms,
        held: Mapping[str, tuple[int, int]] | None = None,
        gradient: Callable[[Tensor], Tensor | None] = lambda tensor: tensor.grad,
    ) -> None:
        """Watch some parameters, of which other processes may hold parts.

        Args:
            norms: makes norms over all processes of norms of what is here.
            held: how many numbers each parameter has on all processes together, and how many
                of them hold the same part of it; None: there is one.
            gradient: gives the gradient of a parameter, where it is kept elsewhere.
        """
        self._gradient = gradient
        self._parts: dict[str, list[Tensor]] = {}
        self._copies: dict[str, list[float]] = {}
        self._sizes: dict[str, int] = {}
        for each in parameters:
            name = part_of(each)
            self._parts.setdefault(name, []).append(each.tensor)
            size, copies = (each.tensor.numel(), 1) if held is None else held[each.name]
            self._copies.setdefault(name, []).append(copies**-0.5)
            self._sizes[name] = self._sizes.get(name, 0) + size
        self._norms, self._divided = norms, held is not None
        self._gradients: list[Tensor] = []
        self._before: list[list[Tensor]] = []

    @torch.no_grad()
    def before(self, scale: float = 1.0) -> None:
        """Take note of the gradients, of which `scale` is the loss scale, and of the weights."""
        self._gradients = []
        for name, part in self._parts.items():
            found = zip(self._copies[name], map(self._gradient, part), strict=True)
            there = [(copies, each) for copies, each in found if each is not None]
            shares = [copies for copies, _ in there] if self._divided else None
            self._gradients.append(_norm([each for _, each in there], part[0], shares) / scale)
        self._before = [[_sampled(each).clone() for each in part] for part in self._parts.values()]

    @torch.no_grad()
    def after(self) -> tuple[PartMeasured, ...]:
        """Return how large each part's gradient was, and how far its weights were moved."""
        numbers = []
        for gradient, before, (name, part) in zip(
            self._gradients, self._before, self._parts.items(), strict=True
        ):
            # What a sampled tensor's values stand for, so that the norms are those of the whole.
            held = zip(self._copies[name], part, before, strict=True)
            shares = [c * (each.numel() / max(of.numel(), 1)) ** 0.5 for c, each, of in held]
            moved = [_sampled(each) - of for each, of in zip(part, before, strict=True)]
            numbers += [gradient, _norm(before, part[0], shares), _norm(moved, part[0], shares)]
        self._gradients, self._before = [], []
        read = iter(self._norms(torch.stack(numbers)).tolist())
        return tuple(
            PartMeasured(
                part=name,
                parameters=size,
                gradient_norm=next(read),
                weight_norm=next(read),
                update_norm=next(read),
            )
            for name, size in self._sizes.items()
        )


def _sampled(tensor: Tensor) -> Tensor:
    """Return at most `_SAMPLED` values of a tensor, evenly spread over it, as one row."""
    every = -(-tensor.numel() // _SAMPLED)
    return tensor.detach().reshape(-1)[:: every | 1]  # odd: not the same column of each row


def _norm(tensors: Sequence[Tensor], of: Tensor, shares: Sequence[float] | None = None) -> Tensor:
    """Return the norm of some tensors together, on the device of `of`, float64 if it has that."""
    exact = torch.float32 if of.device.type == "mps" else torch.float64
    if not tensors:
        return torch.zeros((), dtype=exact, device=of.device)
    norms = torch._foreach_norm(list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    each = torch.stack([norm.to(exact) for norm in norms])
    return (each if shares is None else each * each.new_tensor(shares)).norm()
