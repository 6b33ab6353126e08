"""Feed-forward networks (MLPs): a closed union.

An MLP serves alone (a dense layer, a shared expert) or packed, many experts of one shape with their
weights [experts, out, in]. It states its mathematics once, in `run`, over whatever stands for a
linear map: torch's own for one expert, a grouped or batched product for many at once. A routed
expert may also be `null`, without weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from math import gcd
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.migration import MLP_KINDS
from coterie.foundation.settings import Settings, union
from coterie.model.costs import Count, linear
from coterie.model.part import Part

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


def relu_squared(x: Tensor) -> Tensor:
    """Return max(x, 0)²; as a product, for the derivative of a power is five times slower."""
    positive = F.relu(x)
    return positive * positive


# GELU, x·Φ(x), and its tanh approximation: Hendrycks & Gimpel 2016, arXiv:1606.08415. SiLU (swish):
# x·sigmoid(x). Squared ReLU, max(x, 0)²: So et al. 2021, arXiv:2109.08668.
ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu_squared": relu_squared,
}


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


class GatedMLP(MLPSettings):
    """Gated MLPs: three matrices, one of them gating. Shazeer 2020, arXiv:2002.05202.

    SwiGLU is the default, `activation: silu`; GeGLU is `gelu`, ReGLU `relu`.
    """

    kind: Literal["gated"] = "gated"
    activation: Activation = Field(default="silu", description="of the gate")

    def hidden(self, width: int) -> int:
        """Return the hidden channels: by default 8/3 of the width, so that the size is as usual."""
        return self.width or -(-8 * width // 24) * 8

    def matrices(self, width: int) -> Matrices:
        hidden = self.hidden(width)
        return ("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)

    def build(self, width: int, experts: int | None = None) -> "GatedMLPPart":
        return GatedMLPPart(self, width, experts)


class GatedMLPPart(MLPPart, matrices=("gate", "up", "down")):
    """down(activation(gate(x)) ∘ up(x))."""

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        gate, gate_bias, up, up_bias, down, down_bias = weights
        hidden = self.activate(linear(x, gate, gate_bias)) * linear(x, up, up_bias)
        return linear(hidden, down, down_bias)


class PlainMLP(MLPSettings):
    """The plain MLP: one hidden layer. Vaswani et al. 2017, arXiv:1706.03762, section 3.3.

    GPT-2 has `activation: gelu_tanh` with biases.
    """

    kind: Literal["mlp"] = "mlp"

    def hidden(self, width: int) -> int:
        """Return the hidden channels: by default four times the width."""
        return self.width or 4 * width

    def matrices(self, width: int) -> Matrices:
        hidden = self.hidden(width)
        return ("up", width, hidden), ("down", hidden, width)

    def build(self, width: int, experts: int | None = None) -> "PlainMLPPart":
        return PlainMLPPart(self, width, experts)


class PlainMLPPart(MLPPart, matrices=("up", "down")):
    """down(activation(up(x)))."""

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        up, up_bias, down, down_bias = weights
        return linear(self.activate(linear(x, up, up_bias)), down, down_bias)


class DeepMLP(MLPSettings):
    """Deep: two hidden layers in sequence, narrower than a wide MLP's one.

    By default each has twice the width's channels, so that the matrices hold as many values as
    those of a wide MLP: D·2D + 2D·2D + 2D·D = 8D² = 2·D·4D.

    `width` is that of each hidden layer.
    """

    kind: Literal["deep"] = "deep"

    def hidden(self, width: int) -> int:
        """Return the channels of each hidden layer: by default twice the width."""
        return self.width or 2 * width

    def matrices(self, width: int) -> Matrices:
        hidden = self.hidden(width)
        return ("up", width, hidden), ("middle", hidden, hidden), ("down", hidden, width)

    def build(self, width: int, experts: int | None = None) -> "DeepMLPPart":
        return DeepMLPPart(self, width, experts)


class DeepMLPPart(MLPPart, matrices=("up", "middle", "down")):
    """down(activation(middle(activation(up(x)))))."""

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        up, up_bias, middle, middle_bias, down, down_bias = weights
        hidden = self.activate(linear(x, up, up_bias))
        hidden = self.activate(linear(hidden, middle, middle_bias))
        return linear(hidden, down, down_bias)


class WideMLP(PlainMLP):
    """Wide: the plain MLP under the name it has in mixtures of deep, wide and hybrid experts.

    It may be packed beside them; its function is that of `mlp`.
    """

    kind: Literal["wide"] = "wide"  # pyright: ignore[reportIncompatibleVariableOverride]


class HybridMLP(MLPSettings):
    """Hybrid: a deep and a wide path over the same input, added up.

    The deep path has two hidden layers in sequence, the wide path one that is twice as broad.

    `width` is the wide path's.
    """

    kind: Literal["hybrid"] = "hybrid"
    deep_width: int | None = Field(
        default=None, ge=1, description="channels of the deep path's layers; None: half of `width`"
    )

    def hidden(self, width: int) -> int:
        """Return the channels of the wide path's layer: by default twice the width."""
        return self.width or 2 * width

    def matrices(self, width: int) -> Matrices:
        """Return the shapes of the deep path's matrices, then of the wide path's."""
        wide = self.hidden(width)
        deep = self.deep_width or max(wide // 2, 1)
        return (
            ("deep_up", width, deep), ("deep_middle", deep, deep), ("deep_down", deep, width),
            ("wide_up", width, wide), ("wide_down", wide, width),
        )  # fmt: skip

    def build(self, width: int, experts: int | None = None) -> "HybridMLPPart":
        return HybridMLPPart(self, width, experts)


_MATRICES = ("deep_up", "deep_middle", "deep_down", "wide_up", "wide_down")


class HybridMLPPart(MLPPart, matrices=_MATRICES):
    """deep_down(a(deep_middle(a(deep_up(x))))) + wide_down(a(wide_up(x)))."""

    outputs = frozenset({"deep_down", "wide_down"})

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        up, up_bias, middle, middle_bias, down, down_bias, *wide = weights
        wide_up, wide_up_bias, wide_down, wide_down_bias = wide
        hidden = self.activate(linear(x, up, up_bias))
        deep = linear(self.activate(linear(hidden, middle, middle_bias)), down, down_bias)
        hidden = self.activate(linear(x, wide_up, wide_up_bias))
        return deep + linear(hidden, wide_down, wide_down_bias)


class NullMLP(Settings):
    """Null: an expert without weights, so that a token may be given less computation.

    Zero-computation experts: Jin et al. 2024 (MoE++), arXiv:2410.07348, section 3.1. It returns
    zero (the token passes by the layer) or a copy of its input.
    """

    renamed = {"answer": "output"}

    kind: Literal["null"] = "null"
    output: Literal["zero", "copy"] = Field(
        default="zero", description="what it returns: zeros, or its input"
    )

    @property
    def label(self) -> str:
        return self.kind

    def hidden(self, width: int) -> int:
        return 0

    def counts(self, name: str, width: int) -> Count:
        return Count(name, self.label)

    def build(self, width: int, experts: int | None = None) -> "NullMLPPart":
        return NullMLPPart(self, experts)


class NullMLPPart(MLPPart):
    """Zero, or x itself."""

    names = ()
    outputs = frozenset()

    def __init__(self, settings: NullMLP, experts: int | None) -> None:
        super().__init__(None, 0, experts)
        self.copies = settings.output == "copy"

    def run(self, x: Tensor, weights: Weights, linear: Linear) -> Tensor:
        """Return zeros or x; neither weights nor the linear map are used."""
        return x if self.copies else torch.zeros_like(x)


MLP = Annotated[
    GatedMLP | PlainMLP | DeepMLP | WideMLP | HybridMLP,
    union(GatedMLP, PlainMLP, DeepMLP, WideMLP, HybridMLP, renamed=MLP_KINDS),
]
ExpertMLP = Annotated[
    GatedMLP | PlainMLP | DeepMLP | WideMLP | HybridMLP | NullMLP,
    union(GatedMLP, PlainMLP, DeepMLP, WideMLP, HybridMLP, NullMLP, renamed=MLP_KINDS),
]
