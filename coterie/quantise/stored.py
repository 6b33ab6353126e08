"""Quantised weights in files: each part is a tensor named after its weight and its field."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from coterie.foundation.errors import CheckpointError
from coterie.quantise.formats import Int4Tensor, Int8Tensor
from coterie.quantise.tensor import QuantisedTensor

_CLASSES: tuple[type[QuantisedTensor], ...] = (Int8Tensor, Int4Tensor)
_FIELDS = {field for each in _CLASSES for field in each.fields}


def to_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by name with every quantised one in its parts."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantisedTensor):
            stored |= {f"{name}.{field}": part for field, part in tensor.parts.items()}
        else:
            stored[name] = tensor
    return stored


def stored_kinds(names: Iterable[str]) -> dict[str, str]:
    """Return the format of every weight that is quantised, told by the names of its parts."""
    known = set(names)
    firsts = {each.fields[0]: each for each in _CLASSES}
    found: dict[str, str] = {}
    for name in known:
        weight, _, field = name.rpartition(".")
        made = firsts.get(field)
        if made is not None and all(f"{weight}.{each}" in known for each in made.fields):
            found[weight] = made.kind
    return found


def from_stored(stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by name with the parts of quantised ones put together.

    Args:
        own: the tensors of the model, which say how large each weight is.

    Raises:
        CheckpointError: a part is of another shape or type than its weight needs.
    """
    kinds = {each.kind: each for each in _CLASSES}
    tensors = dict(stored)
    for name, kind in stored_kinds(stored).items():
        if name not in own or name in stored:
            continue
        made = kinds[kind]
        parts = {field: tensors.pop(f"{name}.{field}") for field in made.fields}
        for field, (shape, dtype) in made.part_types(own[name].shape).items():
            part = parts[field]
            if (tuple(part.shape), part.dtype) != (shape, dtype):
                raise CheckpointError(
                    f"{name}.{field} has shape {tuple(part.shape)} and type "
                    f"{_type(part)} instead of {shape} and {str(dtype).removeprefix('torch.')}"
                )
        tensors[name] = made(parts, own[name].shape, own[name].dtype)
    return tensors


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
