"""MLPs as records: a hybrid one is a deep and a plain one side by side."""

from functools import singledispatch
from typing import NamedTuple

from torch import Tensor

from coterie.generate.native.builder import Builder, LoweringError, Matrix
from coterie.generate.native.lower.matrices import matrix_of
from coterie.generate.native.numerics import GELU, GELU_TANH, RELU, RELU_SQUARED, SILU
from coterie.model.mlp import (
    ACTIVATIONS,
    Activation,
    DeepMLPPart,
    GatedMLPPart,
    HybridMLPPart,
    MLPPart,
    NullMLPPart,
    PlainMLPPart,
)

_NUMBERS: dict[Activation, int] = {
    "silu": SILU, "gelu": GELU, "gelu_tanh": GELU_TANH, "relu": RELU, "relu_squared": RELU_SQUARED,
}  # fmt: skip


class Record(NamedTuple):
    """One MLP; without hidden channels it returns its input."""

    hidden: int
    activation: int
    gate: Matrix | None
    up: Matrix | None
    middle: Matrix | None
    down: Matrix | None

    @property
    def words(self) -> list[int]:
        """The record as kernels read it."""
        found = [self.hidden, self.activation]
        for matrix in (self.gate, self.up, self.middle, self.down):
            found += matrix.words if matrix else (0, 0, 0, 0)
        return found


def _activation(part: MLPPart) -> int:
    return next(n for name, n in _NUMBERS.items() if ACTIVATIONS[name] is part.activate)


def _matrices(part: MLPPart, builder: Builder, index: int | None) -> dict[str, Matrix]:
    """Return an MLP's matrices by name, of one expert of a pack."""
    weights: dict[str, Tensor | None] = dict(zip(part.names, part.weights(), strict=True))
    found = {}
    for name, weight in weights.items():
        if not name.endswith("_bias"):
            assert weight is not None
            found[name] = matrix_of(builder, weight, weights[f"{name}_bias"], index)
    return found


@singledispatch
def records_of(part: MLPPart, builder: Builder, index: int | None = None) -> list[Record]:
    """Return what one MLP, or one expert of a pack, computes.

    Raises:
        LoweringError: there is no kernel for it.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@records_of.register
def _single(
    part: GatedMLPPart | PlainMLPPart | DeepMLPPart, builder: Builder, index: int | None = None
) -> list[Record]:
    m = _matrices(part, builder, index)
    matrices = (m.get(name) for name in ("gate", "up", "middle", "down"))
    return [Record(m["up"].outer, _activation(part), *matrices)]


@records_of.register
def _hybrid(part: HybridMLPPart, builder: Builder, index: int | None = None) -> list[Record]:
    m, activation = _matrices(part, builder, index), _activation(part)
    deep_up, wide_up = m["deep_up"], m["wide_up"]
    return [
        Record(deep_up.outer, activation, None, deep_up, m["deep_middle"], m["deep_down"]),
        Record(wide_up.outer, activation, None, wide_up, None, m["wide_down"]),
    ]


@records_of.register
def _null(part: NullMLPPart, builder: Builder, index: int | None = None) -> list[Record]:
    return [Record(0, 0, None, None, None, None)] if part.copies else []
