"""Tensors in files: written, read with readable errors, and checked against a model.

What a model's tensors must be is asked of the model itself, built without memory on torch's meta
device from the checkpoint's own settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coterie.foundation.errors import CheckpointError
from coterie.foundation.migration import tensor_name
from coterie.foundation.printable import printable
from coterie.model import Decoder, DecoderSettings
from coterie.quantise import QuantisedTensor, from_stored, install, to_stored

# What the library and torch raise on headers that are malformed, too large or of unknown types.
_READING = (SafetensorError, OSError, ValueError, RuntimeError, LookupError, TypeError,
            AttributeError, OverflowError)  # fmt: skip
_NOT_NEGATIVE = ("step", "exp_avg_sq", "variance", "row_var", "col_var")
_FACTORED = ("row_var", "col_var")


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file that whoever may read its folder may read.

    Raises:
        OSError: the system could not write; the library's own error hides that in its text.
    """
    try:
        save_file(tensors, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # the library lets nobody else read it


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return {tensor_name(name): tensor for name, tensor in load_file(path).items()}
    except _READING as error:
        raise _unreadable(path, error) from error


def count_tensors(path: Path) -> int:
    """Return how many tensors a safetensors file holds.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return len(file.keys())
    except _READING as error:
        raise _unreadable(path, error) from error


def iterate_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a safetensors file one after the other.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                yield tensor_name(name), file.get_tensor(name)
    except _READING as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path.name} cannot be read ({printable(reason[:200], keep='')})")


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, as they are stored.

    Tied parameters appear once, quantised ones as the parts that hold them.
    """
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return to_stored(tensors)


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy a checkpoint's tensors into a model of the same make; quantised ones take their place.

    Raises:
        CheckpointError: names or shapes differ; the message lists the first of each.
    """
    own = model.state_dict(keep_vars=True)
    given = from_stored(tensors, own)
    by_identity: dict[int, str] = {}
    for name, tensor in own.items():  # a tied parameter was written under its first name
        first = by_identity.setdefault(id(tensor), name)
        if name not in given and first in given:
            given[name] = given[first]
    problems = differences(own, given)
    if problems:
        raise CheckpointError(
            f"The checkpoint {source} belongs to another model:\n  " + "\n  ".join(problems),
            hint="Use the settings it was trained with; they lie beside it in config.yaml.",
        )
    install(model, {n: each for n, each in given.items() if isinstance(each, QuantisedTensor)})
    values = {n: each for n, each in given.items() if not isinstance(each, QuantisedTensor)}
    model.load_state_dict(values, strict=False)  # nothing is missing: see above


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return sentences on what two sets of named tensors do not share."""
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    reshaped = [
        f"{name} has shape {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    problems = reshaped[:5]
    if len(reshaped) > 5:
        problems.append(f"... and {len(reshaped) - 5} more of another shape")
    if missing:
        problems.append(f"{len(missing)} tensors are missing, the first {missing[0]}")
    if unknown:
        problems.append(
            f"{len(unknown)} tensors are unknown here, the first {printable(unknown[0], keep='')}"
        )
    return problems


def hollow_model(settings: DecoderSettings) -> Decoder:
    """Return the model of some settings on the meta device, without memory.

    Raises:
        CheckpointError: no machine could address it.
    """
    try:
        with torch.device("meta"):
            return Decoder(settings)
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        raise CheckpointError(
            f"the model that config.yaml describes cannot be built ({str(error).splitlines()[0]})"
        ) from error


def check_model(path: Path, hollow: Decoder, *, trained: bool, finite: bool) -> int:
    """Check a file of weights against its model; return how many tensors it holds.

    Args:
        path: the file.
        hollow: the model, without memory.
        trained: training keeps weights in the model's own type; imported ones may all have another.
        finite: whether values that are not finite are a fault.

    Raises:
        CheckpointError: names, shapes, types or values are not what they must be.
    """
    own = model_tensors(hollow)
    given: dict[str, Tensor] = {}
    types: set[torch.dtype] = set()
    for name, tensor in iterate_tensors(path):
        given[name] = tensor.to("meta")  # its shape, without its memory
        if finite:
            _check_finite(path, name, tensor)
        if name not in own:
            continue
        types.add(tensor.dtype)
        wanted = own[name].dtype
        if tensor.dtype != wanted and (trained or not _both_floating(tensor.dtype, wanted)):
            raise CheckpointError(
                f"{path.name}: {name} has the type {_type(tensor.dtype)} instead of {_type(wanted)}"
            )
    number = len(given)
    if found := differences(own, from_stored(given, own)):
        raise CheckpointError(f"{path.name} belongs to another model: {found[0]}")
    if len(types := {each for each in types if each.is_floating_point}) > 1:
        raise CheckpointError(f"{path.name} mixes {' and '.join(sorted(map(_type, types)))}")
    return number


def check_optimizer(path: Path, hollow: Decoder, step: int, *, known: bool) -> int:
    """Check a file of moments against their parameters; return how many tensors it holds.

    Args:
        path: the file.
        hollow: the model, without memory.
        step: steps done: no parameter can have moved more often.
        known: whether the optimizer is one of ours; others may keep what they like.

    Raises:
        CheckpointError: names, shapes, types or values are not what they must be.
    """
    parameters = dict(hollow.named_parameters())
    number = 0
    for name, tensor in iterate_tensors(path):
        number += 1
        if known:
            _check_moment(path, name, tensor, parameters, step)
            _check_finite(path, name, tensor)
    return number


def _check_moment(
    path: Path, name: str, tensor: Tensor, parameters: Mapping[str, Tensor], step: int
) -> None:
    """Check one tensor `optimizer.parameter.part` against its parameter."""
    named, _, part = name.partition(".")[2].rpartition(".")
    where = f"{path.name}: {printable(name, keep='')}"
    if named not in parameters:
        raise CheckpointError(f"{where} belongs to no parameter")
    shape, wanted = tuple(tensor.shape), tuple(parameters[named].shape)
    fits = shape == (() if part == "step" else wanted)
    if part in _FACTORED:  # one row or column stands for all of them
        fits = len(shape) == len(wanted) and all(
            size in (1, whole) for size, whole in zip(shape, wanted, strict=True)
        )
    if not fits:
        raise CheckpointError(f"{where} has shape {shape}, its parameter {wanted}")
    if tensor.dtype != parameters[named].dtype:
        raise CheckpointError(f"{where} has the type {_type(tensor.dtype)}")
    if part in _NOT_NEGATIVE and bool((tensor < 0).any()):
        raise CheckpointError(f"{where} is negative")
    if part == "step" and (float(tensor) > step or float(tensor) % 1 != 0):
        raise CheckpointError(f"{where} counts {float(tensor):g} steps, but {step:,} were done")


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            f"{path.name}: {printable(name, keep='')} holds values that are not finite"
        )


def _both_floating(one: torch.dtype, other: torch.dtype) -> bool:
    return one.is_floating_point and other.is_floating_point and one.itemsize >= 2


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
