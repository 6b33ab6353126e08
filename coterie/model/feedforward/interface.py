"""What an MLP is: weights for one expert or a pack of them, and one function over them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import gcd
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.settings import Settings
from coterie.model.costs import Count, linear
from coterie.model.feedforward.activation import ACTIVATIONS, Activation
from coterie.model.part import Part

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Maps (x, weight, bias) to x·weightᵀ + bias, for one expert or for all experts of a pack."""
Weights = tuple[Any, ...]
"""The matrices of an MLP, each followed by its bias or None."""
Matrices = tuple[tuple[str, int, int], ...]
"""Name, inputs and outputs of each matrix of an MLP, in the order that `run` takes them."""


class MLPSettings(Settings, ABC):
    """What every MLP with weights is told."""

    width: int | None = Field(
        default=None, ge=1, description="hidden channels; None: of the usual size"
    )
    bias: bool = Field(default=False, description="biases on every matrix")
    activation: Activation = Field(default="gelu", description="of every hidden layer")

    @property
    def label(self) -> str:
        """The kind and its activation, for tables and messages."""
        return f"{getattr(self, 'kind', '')} {self.activation}"

    @abstractmethod
    def hidden(self, width: int) -> int:
        """Return the hidden channels in a decoder of the given width."""

    @abstractmethod
    def matrices(self, width: int) -> Matrices:
        """Return the shapes of the matrices."""

    @abstractmethod
    def build(self, width: int, experts: int | None = None) -> "MLPPart":
        """Return one MLP, or a pack of `experts` of them."""

    def counts(self, name: str, width: int) -> Count:
        """Return the count of one MLP."""
        sizes = self.matrices(width)
        return Count.of(name, self.label, [linear(*each, bias=self.bias) for each in sizes])


class MLPPart(Part, ABC):
    """Weights of `experts` MLPs of one shape; without `experts`, of a single one.

    Attributes:
        names: of the parameters, in the order that `run` takes them: each matrix, then its bias.
        experts: how many are packed together; None: a single one without that dimension.
        count: the same number; 1 for a single one.
        alignment: the greatest common divisor of all sides of the matrices.
    """

    outputs = frozenset({"down"})
    names: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, matrices: tuple[str, ...] | None = None, **others: Any) -> None:
        """Take the names of a kind's matrices, as its settings have them; each may have a bias."""
        super().__init_subclass__(**others)
        if matrices is not None:
            cls.names = tuple(name + end for name in matrices for end in ("", "_bias"))
            cls.roles = dict(zip(cls.names, ("matrix", "bias") * len(matrices), strict=True))

    def __init__(self, settings: MLPSettings | None, width: int, experts: int | None) -> None:
        super().__init__()
        self.experts = experts
        self.count = experts or 1
        self.alignment = 0
        if settings is None:
            return
        self.activate = ACTIVATIONS[settings.activation]
        packed = () if experts is None else (experts,)
        for name, inputs, outputs in settings.matrices(width):
            self.alignment = gcd(self.alignment, inputs, outputs)
            self.register_parameter(name, nn.Parameter(torch.empty(*packed, outputs, inputs)))
            bias = nn.Parameter(torch.empty(*packed, outputs)) if settings.bias else None
            self.register_parameter(f"{name}_bias", bias)

    def weights(self) -> Weights:
        """Return the parameters as `run` takes them."""
        return tuple(getattr(self, name) for name in self.names)

    @abstractmethod
    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Compute the MLP on x [..., D] with weights of any packing that `linear` understands."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Compute a single, unpacked MLP."""
        assert self.experts is None, "packed experts are computed by an expert kernel"
        return self.run(x, self.weights(), nn.functional.linear)
