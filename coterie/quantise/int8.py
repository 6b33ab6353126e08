"""int8: groups of 32 elements of a row in whole numbers of −127 … 127 and one bfloat16 scale.

ŵ = scale · q with scale = max |w| / 127 over the group, so |w − ŵ| ≤ scale / 2.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.model import Role
from coterie.quantise.bfloat import rounded_up
from coterie.quantise.settings import WeightSettings
from coterie.quantise.tensor import QuantisedTensor

GROUP = 32
_MOST = 127


class Int8Weights(WeightSettings):
    """Settings of int8 weights."""

    kind: Literal["int8"] = "int8"
    embedding: Literal["float32", "int8"] = Field(
        default="int8", description="the embedding; a tied head is the same tensor"
    )
    head: Literal["float32", "int8"] = Field(default="int8", description="a head of its own")

    def quantised(self, weight: Tensor, role: Role) -> QuantisedTensor | None:
        return Int8Tensor.of(weight) if self.format_of(role) == "int8" else None


class Int8Tensor(QuantisedTensor):
    """A weight in int8.

    Attributes:
        data8: the whole numbers, int8 [..., out, in].
        scale: of each group, bfloat16 [..., out, groups]; the last one may be shorter than 32.
    """

    kind = "int8"
    fields = ("data8", "scale")
    data8: Tensor
    scale: Tensor

    @classmethod
    def part_types(cls, shape: Sequence[int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        *rows, size = shape
        return {
            "data8": (tuple(shape), torch.int8),
            "scale": ((*rows, -(-size // GROUP)), torch.bfloat16),
        }

    @classmethod
    def of(cls, weight: Float[Tensor, "*N out in"]) -> Self:
        groups = _grouped(weight.detach().float())
        scale = rounded_up(groups.abs().amax(-1) / _MOST)
        divisor = scale.where(scale > 0, torch.ones_like(scale))  # a group of zeros
        data = (groups / divisor[..., None]).round_().clamp_(-_MOST, _MOST).to(torch.int8)
        data = data.flatten(-2)[..., : weight.shape[-1]].contiguous()
        return cls({"data8": data, "scale": scale.bfloat16()}, weight.shape, weight.dtype)

    def dequantise(self) -> Float[Tensor, "*N out in"]:
        values = _grouped(self.data8.float()).mul_(self.scale[..., None])
        return values.flatten(-2)[..., : self.shape[-1]].to(self.dtype)


def _grouped(values: Float[Tensor, "*N in"]) -> Float[Tensor, "*N G 32"]:
    if missing := -values.shape[-1] % GROUP:
        values = F.pad(values, (0, missing))
    return values.unflatten(-1, (-1, GROUP))
