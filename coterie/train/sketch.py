"""A training step on tensors without memory: shapes and lifetimes are real, numbers are not.

What comes of parameters are shapes on a device, computed by torch's meta kernels. Whole numbers and
what comes of them alone (masks, tables of positions) are real, as sizes depend on them: how many
tokens go to which expert. What a shape's numbers would decide is decided evenly: the best k of n
are dealt in turn.

torch's own `FakeTensorMode` does much of this, but takes seconds to import, ten times as long per
operator, and knows of no whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from coterie.model import Decoder

_aten = torch.ops.aten
_CHOOSING = {
    _aten.topk.default, _aten.sort.default, _aten.sort.stable, _aten.argsort.stable,
    _aten.argmax.default, _aten.multinomial.default,
}  # fmt: skip


class Shape(Tensor):
    """A floating-point tensor without numbers; `meta` is the same on torch's meta device."""

    meta: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, meta: Tensor, device: torch.device) -> Shape:
        if device.type == "cuda" and device.index is None:  # autograd asks which
            device = torch.device("cuda", torch.cuda.current_device())
        shape: Shape = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, meta.size(), meta.stride(), meta.storage_offset(), dtype=meta.dtype, device=device
        )
        shape.meta = meta
        return shape

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the shape of an operator's result."""
        return _computed(func, args, kwargs or {})


def without_memory(decoder: Decoder, device: torch.device) -> Decoder:
    """Return a decoder of torch's meta device as one of shapes on a device."""
    for module in decoder.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if isinstance(tensor, nn.Parameter):
                    shape = Shape(tensor.detach(), device)
                    held[name] = nn.Parameter(shape, requires_grad=tensor.requires_grad)
                elif tensor is not None:
                    held[name] = _dressed(tensor, {}, device, 1)
    return decoder


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """Return a tensor's memory, or what stands for it where there is none."""
    return (tensor.meta if isinstance(tensor, Shape) else tensor).untyped_storage()


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among an operator's arguments or results."""
    for value in values:
        if is_traceable_wrapper_subclass(value):  # has no memory but that of what it wraps
            yield from tensors_in(getattr(value, name) for name in value.__tensor_flatten__()[0])
        elif isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operator makes of arguments with a shape among them."""
    if func is _aten._local_scalar_dense.default:
        return 1.0  # finite, whoever asks
    first = next(t for t in tensors_in((*args, *kwargs.values())) if isinstance(t, Shape))
    device = torch.device(kwargs.get("device") or first.device)
    given: dict[int, Tensor] = {}
    bare = [_bare(value, given) for value in args]
    named = {name: _bare(value, given) for name, value in kwargs.items()}
    if named.get("device") is not None:
        named["device"] = torch.device("meta")
    of = first.shape[-1] if func in _CHOOSING else 1
    return _dressed(func(*bare, **named), given, device, of)


def _bare(value: Any, given: dict[int, Tensor]) -> Any:
    """Return an argument on the meta device, and note what it was."""
    if isinstance(value, (list, tuple)):
        return [_bare(each, given) for each in value]
    if not isinstance(value, Tensor):
        return value
    meta = value.meta if isinstance(value, Shape) else value.to("meta")
    given[id(meta)] = value
    return meta


def _dressed(value: Any, given: dict[int, Tensor], device: torch.device, of: int) -> Any:
    """Return a result as a shape, or for whole numbers as real ones dealt out of so many."""
    if isinstance(value, (list, tuple)):
        return type(value)(_dressed(each, given, device, of) for each in value)
    if not isinstance(value, Tensor):
        return value
    if id(value) in given:
        return given[id(value)]  # changed in place
    if value.is_floating_point():
        return Shape(value, device)
    dealt = torch.arange(value.numel(), device=device).remainder_(of)
    return dealt.to(value.dtype).view(value.shape)
