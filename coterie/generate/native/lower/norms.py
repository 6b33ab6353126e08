"""Normalisation."""

from functools import singledispatch
from typing import NamedTuple

from torch import nn

from coterie.generate.native.builder import Buffer, Builder, LoweringError
from coterie.generate.native.kernels.norm import LAYER, NO_NORM, NORMALISE, RMS, Normalise
from coterie.model.norm import LayerNormPart, RMSNormPart


class NormPlan(NamedTuple):
    """A norm as kernels know it."""

    kind: int
    gain: int
    bias: int
    epsilon: float


PLAIN = NormPlan(NO_NORM, 0, 0, 0.0)
"""What is not normalised."""


@singledispatch
def norm_of(part: nn.Module, builder: Builder) -> NormPlan:
    """Return a norm as kernels know it.

    Raises:
        LoweringError: they do not.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@norm_of.register
def _rms(part: RMSNormPart, builder: Builder) -> NormPlan:
    return NormPlan(RMS, builder.vector(part.weight), 0, part.epsilon)


@norm_of.register
def _layer(part: LayerNormPart, builder: Builder) -> NormPlan:
    return NormPlan(LAYER, builder.vector(part.weight), builder.vector(part.bias), part.epsilon)


def normalised(builder: Builder, part: nn.Module, source: Buffer) -> Buffer:
    """Add a stage that normalises; return where its result will be."""
    plan, out = norm_of(part, builder), builder.buffer(source.width)
    fields = Normalise(
        plan.kind, plan.gain, plan.bias, source.width, source.address, source.width,
        out.address, out.width,
    )  # fmt: skip
    builder.stage(builder.operation(NORMALISE, fields, 1, builder.count.data_ptr(), plan.epsilon))
    return out
