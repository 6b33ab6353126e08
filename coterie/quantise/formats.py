"""The formats of weights, a closed union, and how one is chosen where a model is loaded."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.settings import Settings, union
from coterie.model import Role
from coterie.quantise.tensor import QuantisedTensor


class WeightSettings(Settings, ABC):
    """Base of the settings of a weight format."""

    def format_of(self, role: Role) -> str:
        """Return the format of a parameter of this role; float32 where it stays as it is.

        Matrices have that of the settings, embeddings and heads one of their own. Norms, biases and
        routers are few bytes, and a router's choice is the one thing that must not waver.
        """
        own = str(getattr(self, "kind", ""))
        embedding, head = (str(getattr(self, name, own)) for name in ("embedding", "head"))
        formats = {"matrix": own, "embedding": embedding, "table": embedding, "head": head}
        return formats.get(role, "float32")

    @abstractmethod
    def quantised(self, weight: Tensor, role: Role) -> QuantisedTensor | None:
        """Return a weight in its role's format; None where it stays as it is."""


_CUT = -(1 << 16)


def rounded_up(values: Tensor) -> Tensor:
    """Return finite float32 values as the least bfloat16 that are not below them, in float32."""
    bits = values.contiguous().view(torch.int32)
    return torch.where(values > 0, bits + 0xFFFF, bits).bitwise_and_(_CUT).view(torch.float32)


def rounded_down(values: Tensor) -> Tensor:
    """Return finite float32 values as the greatest bfloat16 that are not above them, in float32."""
    return -rounded_up(-values)


GROUP = 32
_MOST_OF_8 = 127


class Int8Weights(WeightSettings):
    """int8: groups of 32 elements of a row in whole numbers of −127 … 127 and one bfloat16 scale.

    ŵ = scale · q with scale = max |w| / 127 over the group, so |w − ŵ| ≤ scale / 2.
    """

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
        scale = rounded_up(groups.abs().amax(-1) / _MOST_OF_8)
        divisor = scale.where(scale > 0, torch.ones_like(scale))  # a group of zeros
        data = (groups / divisor[..., None]).round_().clamp_(-_MOST_OF_8, _MOST_OF_8).to(torch.int8)
        data = data.flatten(-2)[..., : weight.shape[-1]].contiguous()
        return cls({"data8": data, "scale": scale.bfloat16()}, weight.shape, weight.dtype)

    def dequantise(self) -> Float[Tensor, "*N out in"]:
        values = _grouped(self.data8.float()).mul_(self.scale[..., None])
        return values.flatten(-2)[..., : self.shape[-1]].to(self.dtype)


def _grouped(values: Float[Tensor, "*N in"]) -> Float[Tensor, "*N G 32"]:
    if missing := -values.shape[-1] % GROUP:
        values = F.pad(values, (0, missing))
    return values.unflatten(-1, (-1, GROUP))


_HALF, _MOST_OF_4 = GROUP // 2, 15
_SHARES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7)
"""Shares of a group's range that a search covers, about its middle."""
_AT_ONCE = 1 << 22
"""Elements of a matrix that are searched together."""


class Int4Weights(WeightSettings):
    """int4: groups of 32 elements of a row in whole numbers of 0 … 15, a bfloat16 scale and
    minimum.

    ŵ = scale · q + minimum. With plain rounding the group's range is covered and |w − ŵ| ≤ scale /
    2. A search takes for each group the pair of least squared error among many: the outermost
    elements may then be cut off a little where the others gain more.
    """

    kind: Literal["int4"] = "int4"
    embedding: Literal["float32", "int8", "int4"] = Field(
        default="int8", description="the embedding; a tied head is the same tensor"
    )
    head: Literal["float32", "int8", "int4"] = Field(
        default="int8", description="a head of its own"
    )
    search: bool = Field(default=True, description="search each group's scale for the least error")

    def quantised(self, weight: Tensor, role: Role) -> QuantisedTensor | None:
        match self.format_of(role):
            case "int4":
                return Int4Tensor.of(weight, search=self.search)
            case "int8":
                return Int8Tensor.of(weight)
        return None


class Int4Tensor(QuantisedTensor):
    """A weight in int4.

    Where `in` is no multiple of 32 the last group is filled up with zeros.

    Attributes:
        packed: uint8 [..., out, 16 · groups]; of each group's 16 bytes the low nibbles are its
            first half and the high ones its second.
        scale: scale and minimum of each group, bfloat16 [..., out, groups, 2].
    """

    kind = "int4"
    fields = ("packed", "scale")
    packed: Tensor
    scale: Tensor

    @classmethod
    def part_types(cls, shape: Sequence[int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        *rows, size = shape
        groups = -(-size // GROUP)
        return {
            "packed": ((*rows, groups * _HALF), torch.uint8),
            "scale": ((*rows, groups, 2), torch.bfloat16),
        }

    @classmethod
    def of(cls, weight: Float[Tensor, "*N out in"], *, search: bool = True) -> Self:
        values = F.pad(weight.detach().float(), (0, -weight.shape[-1] % GROUP))
        groups = values.reshape(-1, GROUP)
        grid_of = _searched if search and not weight.is_meta else _plain
        grids = torch.cat([grid_of(each) for each in groups.split(_AT_ONCE // GROUP)])
        rows = weight.shape[:-1]
        parts = {
            "packed": _pack(_numbers(groups, grids)).view(*rows, -1),
            "scale": grids.bfloat16().view(*rows, -1, 2),
        }
        return cls(parts, weight.shape, weight.dtype)

    def dequantise(self) -> Float[Tensor, "*N out in"]:
        bytes_ = self.packed.unflatten(-1, (-1, _HALF))
        scale, minimum = self.scale.float().split(1, -1)
        values = scale.new_empty(*scale.shape[:-1], GROUP)
        values[..., :_HALF] = bytes_ & 15
        values[..., _HALF:] = bytes_ >> 4
        values.mul_(scale).add_(minimum)
        return values.flatten(-2)[..., : self.shape[-1]].to(self.dtype)


def _pack(numbers: Float[Tensor, "G 32"]) -> UInt8[Tensor, "G 16"]:
    bytes_ = numbers.to(torch.uint8)
    return bytes_[:, :_HALF] | bytes_[:, _HALF:] << 4


def _numbers(groups: Float[Tensor, "G 32"], grids: Float[Tensor, "G 2"]) -> Float[Tensor, "G 32"]:
    scale, minimum = grids.split(1, -1)
    divisor = scale.where(scale > 0, torch.ones_like(scale))  # a group of equal elements
    return ((groups - minimum) / divisor).round_().clamp_(0, _MOST_OF_4)


def _plain(groups: Float[Tensor, "G 32"]) -> Float[Tensor, "G 2"]:
    """Return scales and minima that cover each group."""
    minimum = rounded_down(groups.amin(-1))
    scale = rounded_up((groups.amax(-1) - minimum) / _MOST_OF_4)
    return torch.stack((scale, minimum), -1)


def _searched(groups: Float[Tensor, "G 32"]) -> Float[Tensor, "G 2"]:
    """Return the scale and minimum of least squared error of each group.

    For each share of the range the numbers are rounded and, these given, scale and minimum follow
    from a linear regression.
    """
    best = _plain(groups)
    least = _error(groups, best)
    low, high = groups.amin(-1), groups.amax(-1)
    for share in _SHARES:
        cut = (high - low) * ((1 - share) / 2)
        first = torch.stack(((high - low) * (share / _MOST_OF_4), low + cut), -1)
        grids = _fitted(groups, _numbers(groups, first))
        for tried in (grids, _fitted(groups, _numbers(groups, grids))):
            error = _error(groups, tried)
            better = error < least
            best, least = tried.where(better[:, None], best), error.where(better, least)
    return best


def _fitted(groups: Float[Tensor, "G 32"], numbers: Float[Tensor, "G 32"]) -> Float[Tensor, "G 2"]:
    """Return the line through (number, element) of each group, as bfloat16 holds it."""
    mean, centre = groups.mean(-1, keepdim=True), numbers.mean(-1, keepdim=True)
    spread = (numbers - centre).square().sum(-1, keepdim=True)
    scale = ((numbers - centre) * groups).sum(-1, keepdim=True) / spread.clamp_min(1e-6)
    scale = scale.bfloat16().float()
    minimum = (mean - scale * centre).bfloat16().float()
    return torch.cat((scale, minimum), -1)


def _error(groups: Float[Tensor, "G 32"], grids: Float[Tensor, "G 2"]) -> Float[Tensor, " G"]:
    scale, minimum = grids.split(1, -1)
    return (_numbers(groups, grids) * scale + minimum - groups).square_().sum(-1)


Weights = Annotated[Int8Weights | Int4Weights, union(Int8Weights, Int4Weights)]

_HINT = "For example: weights=int8   or: weights=int4 weights.head=float32"


class WeightChoice(Settings):
    """What a model's weights are made when it is loaded."""

    weights: Weights | None = Field(
        default=None, description="format of the weights; None: as they were stored"
    )


def chosen_weights(*layers: Layer) -> WeightSettings | None:
    """Return the format that layers with the key `weights` choose.

    Raises:
        SettingsError: there is no such format or setting.
    """
    return load_settings(WeightChoice, layers, _HINT).settings.weights
