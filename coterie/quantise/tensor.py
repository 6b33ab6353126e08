"""Quantised weights that stand where float weights stood.

A `QuantisedTensor` says it has the shape and type of the weight it came from, and keeps fewer
bytes. What chooses along its first dimension (an expert, the rows of an embedding) returns the
chosen part, still quantised; every other operation gets the float values, made for that operation
alone. So the model's own code serves, and an expert that no token chose is never read.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

_aten = torch.ops.aten
_Map = Callable[[Tensor], Tensor]


class QuantisedTensor(Tensor):
    """A weight [..., out, in] in a format of few bits.

    Attributes:
        kind: the format's name.
        fields: the names of the tensors that hold it; all have the leading dimensions [..., out].
    """

    kind: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    # Operations are taken over below autograd; attributes such as `shape` stay as fast as they are.
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(
        cls, parts: Mapping[str, Tensor], shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Any:
        """Return the weight that these parts hold.

        Args:
            parts: a tensor for each of `fields`.
        """
        device = parts[cls.fields[0]].device
        # Views of a tensor that is no inference tensor must be none either, wherever they are made.
        with torch.inference_mode(False):
            made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
                cls, tuple(shape), dtype=dtype, device=device, requires_grad=False
            )
        for name in cls.fields:
            setattr(made, name, parts[name])
        return made

    @classmethod
    @abstractmethod
    def part_types(cls, shape: Sequence[int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return the shape and type of each part of a weight of this shape."""

    @abstractmethod
    def dequantise(self) -> Tensor:
        """Return the values."""

    @property
    def parts(self) -> dict[str, Tensor]:
        """The tensors that hold it, by field."""
        return {name: getattr(self, name) for name in self.fields}

    def map(self, change: _Map, shape: Sequence[int] | None = None) -> Self:
        """Return the weight whose parts are changed; None: its shape stays."""
        parts = {name: change(part) for name, part in self.parts.items()}
        return type(self)(parts, self.shape if shape is None else shape, self.dtype)

    def __repr__(self, **_: Any) -> str:
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype}, {self.device})"

    def __tensor_flatten__(self) -> tuple[list[str], torch.dtype]:
        return list(self.fields), self.dtype

    @classmethod
    def __tensor_unflatten__(
        cls, parts: Mapping[str, Tensor], dtype: torch.dtype, shape: Sequence[int], stride: Any
    ) -> Self:
        return cls(parts, shape, dtype)

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        keeps = _KEEPS.get(function)
        if keeps is not None and isinstance(arguments[0], QuantisedTensor):
            kept = keeps(*arguments, **keywords)
            if kept is not NotImplemented:
                return kept
        for each, said in zip(arguments, function._schema.arguments, strict=False):
            if isinstance(each, QuantisedTensor) and said.is_write:
                raise RuntimeError(
                    f"{each.kind} weights can be read and not written ({function}); "
                    "change the float weights and quantise them again"
                )
        return function(*tree_map(_values, arguments), **tree_map(_values, keywords))


def dequantised(weight: Tensor) -> Tensor:
    """Return a weight's values, whether it is quantised or not."""
    return weight.dequantise() if isinstance(weight, QuantisedTensor) else weight


def stored_bytes(weights: Iterable[Tensor]) -> int:
    """Return how many bytes weights take, each counted once."""
    each = {id(weight): weight for weight in weights}.values()
    return sum(
        sum(part.nbytes for part in weight.parts.values())
        if isinstance(weight, QuantisedTensor)
        else weight.nbytes
        for weight in each
    )


def _values(argument: Any) -> Any:
    return argument.dequantise() if isinstance(argument, QuantisedTensor) else argument


def _same(weight: QuantisedTensor, **_: Any) -> Tensor:
    return weight.map(lambda part: part.detach())


def _clone(weight: QuantisedTensor, **_: Any) -> Tensor:
    return weight.map(torch.clone)


def _to(weight: QuantisedTensor, **how: Any) -> Tensor:
    """Move a weight, or let it return values of another type."""
    dtype = how.get("dtype") or weight.dtype
    if not dtype.is_floating_point:
        return NotImplemented  # pyright: ignore[reportReturnType]
    where = {name: how[name] for name in ("device", "non_blocking") if how.get(name) is not None}
    parts = {name: part.to(**where) for name, part in weight.parts.items()}
    return type(weight)(parts, weight.shape, dtype)


def _select(weight: QuantisedTensor, dim: int, index: int) -> Tensor:
    if dim != 0 or weight.ndim < 2:
        return NotImplemented  # pyright: ignore[reportReturnType]
    return weight.map(lambda part: part.select(0, index), weight.shape[1:])


def _unbind(weight: QuantisedTensor, dim: int = 0) -> list[Tensor]:
    if dim != 0 or weight.ndim < 2:
        return NotImplemented  # pyright: ignore[reportReturnType]
    return [_select(weight, 0, index) for index in range(len(weight))]


def _slice(
    weight: QuantisedTensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    if dim != 0 or weight.ndim < 2:
        return NotImplemented  # pyright: ignore[reportReturnType]
    rows = slice(start, end, step)
    number = len(range(*rows.indices(len(weight))))
    return weight.map(lambda part: part[rows], (number, *weight.shape[1:]))


def _index_select(weight: QuantisedTensor, dim: int, index: Tensor) -> Tensor:
    if dim != 0 or weight.ndim < 2:
        return NotImplemented  # pyright: ignore[reportReturnType]
    shape = (len(index), *weight.shape[1:])
    return weight.map(lambda part: part.index_select(0, index), shape)


def _embedding(weight: QuantisedTensor, indices: Tensor, *_: Any, **__: Any) -> Tensor:
    shape = (*indices.shape, *weight.shape[1:])
    return weight.map(lambda part: part[indices], shape).dequantise()


_KEEPS: dict[Any, Callable[..., Any]] = {
    _aten.detach.default: _same,
    _aten.alias.default: _same,
    _aten.clone.default: _clone,
    _aten._to_copy.default: _to,
    _aten.select.int: _select,
    _aten.unbind.int: _unbind,
    _aten.slice.Tensor: _slice,
    _aten.index_select.default: _index_select,
    _aten.embedding.default: _embedding,
}
"""Operations that read a part, or move it, without making it float; they return NotImplemented
where they cannot."""
