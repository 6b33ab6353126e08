"""What a body is: weights for one expert or a pack of them, and one function over them.

Two shapes of body share their code here: gated ones (three matrices) and plain ones (two).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear
from coterie.model.part import Part

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Maps (x, weight, bias) to x·weightᵀ + bias, for one expert or for all experts of a pack."""
Weights = tuple[Tensor | None, ...]


class BodyPart(Part, ABC):
    """Weights of `experts` bodies of one shape; without `experts`, of a single one."""

    names: ClassVar[tuple[str, ...]]  # of the parameters, in the order that `run` takes them
    experts: int | None

    def weights(self) -> Weights:
        """Return the parameters as `run` takes them."""
        return tuple(getattr(self, name) for name in self.names)

    @abstractmethod
    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Compute the body on x [..., D] with weights of any packing that `linear` understands."""
        ...

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Compute a single, unpacked body."""
        assert self.experts is None, "packed experts are computed by an expert computation"
        return self.run(x, self.weights(), nn.functional.linear)

    def _matrix(self, name: str, outputs: int, inputs: int, *, bias: bool) -> None:
        """Hold a matrix [experts, out, in] and, where wanted, its biases [experts, out]."""
        packed = () if self.experts is None else (self.experts,)
        self.register_parameter(name, nn.Parameter(torch.empty(*packed, outputs, inputs)))
        vector = nn.Parameter(torch.empty(*packed, outputs)) if bias else None
        self.register_parameter(f"{name}_bias", vector)


class BodySettings(Settings):
    """What all bodies are told."""

    width: int | None = Field(
        default=None, ge=1, description="hidden channels; None: of the usual size"
    )
    bias: bool = Field(default=False, description="biases on every matrix")


class GatedSettings(BodySettings):
    """Base of gated bodies: three matrices."""

    def hidden(self, width: int) -> int:
        """Return the hidden channels: by default 8/3 of the width, so that the size is as usual."""
        return self.width or -(-8 * width // 24) * 8

    def counts(self, name: str, width: int) -> Count:
        """Return the count of one body."""
        hidden = self.hidden(width)
        parts = [
            linear("gate", width, hidden, bias=self.bias),
            linear("up", width, hidden, bias=self.bias),
            linear("down", hidden, width, bias=self.bias),
        ]
        return Count.of(name, getattr(self, "kind", ""), parts)


class GatedPart(BodyPart):
    """down(activation(gate(x)) ∘ up(x)): Shazeer 2020, arXiv:2002.05202."""

    names = ("gate", "gate_bias", "up", "up_bias", "down", "down_bias")
    roles = {
        "gate": "matrix", "up": "matrix", "down": "matrix",
        "gate_bias": "bias", "up_bias": "bias", "down_bias": "bias",
    }  # fmt: skip
    outputs = frozenset({"down"})

    def __init__(self, settings: GatedSettings, width: int, experts: int | None) -> None:
        super().__init__()
        self.experts = experts
        hidden = settings.hidden(width)
        self._matrix("gate", hidden, width, bias=settings.bias)
        self._matrix("up", hidden, width, bias=settings.bias)
        self._matrix("down", width, hidden, bias=settings.bias)

    @abstractmethod
    def activate(self, x: Tensor) -> Tensor:
        """Return the gate's activation."""
        ...

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Compute the gated body."""
        gate, gate_bias, up, up_bias, down, down_bias = weights
        assert gate is not None
        assert up is not None
        assert down is not None
        hidden = self.activate(linear(x, gate, gate_bias)) * linear(x, up, up_bias)
        return linear(hidden, down, down_bias)


class PlainSettings(BodySettings):
    """Base of plain bodies: two matrices."""

    def hidden(self, width: int) -> int:
        """Return the hidden channels: by default four times the width."""
        return self.width or 4 * width

    def counts(self, name: str, width: int) -> Count:
        """Return the count of one body."""
        hidden = self.hidden(width)
        parts = [
            linear("up", width, hidden, bias=self.bias),
            linear("down", hidden, width, bias=self.bias),
        ]
        return Count.of(name, getattr(self, "kind", ""), parts)


class PlainPart(BodyPart):
    """down(activation(up(x))): Vaswani et al. 2017, arXiv:1706.03762, section 3.3."""

    names = ("up", "up_bias", "down", "down_bias")
    roles = {"up": "matrix", "down": "matrix", "up_bias": "bias", "down_bias": "bias"}
    outputs = frozenset({"down"})

    def __init__(self, settings: PlainSettings, width: int, experts: int | None) -> None:
        super().__init__()
        self.experts = experts
        hidden = settings.hidden(width)
        self._matrix("up", hidden, width, bias=settings.bias)
        self._matrix("down", width, hidden, bias=settings.bias)

    @abstractmethod
    def activate(self, x: Tensor) -> Tensor:
        """Return the activation."""
        ...

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Compute the plain body."""
        up, up_bias, down, down_bias = weights
        assert up is not None
        assert down is not None
        return linear(self.activate(linear(x, up, up_bias)), down, down_bias)
