"""Tensors by name: a model's own, put into one, and checked against one.

What a model's tensors must be is asked of the model itself, built without memory on torch's meta
device from the checkpoint's own settings.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from coterie.checkpoint.tensor_file import ALIGNMENT, iterate_tensors
from coterie.foundation.errors import CheckpointError
from coterie.foundation.printable import printable
from coterie.model import Decoder, DecoderSettings
from coterie.quantise import QuantisedTensor, from_stored, install, to_stored

_FACTORED = ("row_var", "col_var")
_FLAT = tuple(f"{m}_{p}" for m in ("exp_avg", "exp_avg_sq") for p in ("codes", "scale", "rest"))
_NOT_NEGATIVE = ("step", "exp_avg_sq", "variance", *_FACTORED, *_FLAT[1:2], *_FLAT[4:])


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
    values = _install_quantised(model, _fitting(model, tensors, source))
    model.load_state_dict(values, strict=False)  # nothing is missing


def adopt_tensors(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Let a model take a checkpoint's tensors over, where its own would be copies of them.

    Those of another type, or that do not begin where torch's own memory would, are copied still.

    Raises:
        CheckpointError: names or shapes differ; the message lists the first of each.
    """
    own = model.state_dict(keep_vars=True)
    values = _install_quantised(model, _fitting(model, tensors, source))
    for name, value in values.items():
        own[name].data = _aligned(value.to(own[name].dtype))


def _aligned(tensor: Tensor) -> Tensor:
    """Return a tensor that begins where torch would have put it."""
    if isinstance(tensor, QuantisedTensor):
        return tensor.map(_aligned)
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def _fitting(
    model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str
) -> dict[str, Tensor]:
    """Return a tensor for each of a model's own, tied ones and quantised ones included.

    Raises:
        CheckpointError: names or shapes differ.
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
    return given


def _install_quantised(model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put quantised weights into a model; return the others."""
    made = {name: each for name, each in given.items() if isinstance(each, QuantisedTensor)}
    install(model, {name: _aligned(each) for name, each in made.items()})
    return {name: each for name, each in given.items() if name not in made}


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
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


OF_METHOD = "method."
"""Begins the names of what a training method keeps beside weights and moments."""


def check_optimizer(path: Path, hollow: Decoder, step: int, *, known: bool) -> int:
    """Check a file of moments against their parameters; return how many tensors it holds.

    Args:
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
            if not name.startswith(OF_METHOD):
                _check_moment(path, name, tensor, parameters, step)
            _check_finite(path, name, tensor)
    return number


def _check_moment(
    path: Path, name: str, tensor: Tensor, parameters: Mapping[str, Tensor], step: int
) -> None:
    """Check one tensor `optimizer.parameter.part` against its parameter."""
    named, _, part = name.partition(".")[2].rpartition(".")
    where = f"{path.name}: {printable(name, keep='')}"
    if named.rpartition(".lora_")[0] in parameters:
        return  # of an adapter, whose shape only the run's own settings know
    if named not in parameters:
        raise CheckpointError(f"{where} belongs to no parameter")
    shape, wanted = tuple(tensor.shape), tuple(parameters[named].shape)
    fits = shape == (() if part == "step" else wanted)
    if part in _FACTORED:  # one row or column stands for all of them
        fits = len(shape) == len(wanted) and all(
            size in (1, whole) for size, whole in zip(shape, wanted, strict=True)
        )
    if part in _FLAT:  # the optimizer knows how many exactly
        fits = len(shape) == 1 and tensor.numel() <= parameters[named].numel()
    if not fits:
        raise CheckpointError(f"{where} has shape {shape}, its parameter {wanted}")
    expected = torch.uint8 if part.endswith("_codes") else parameters[named].dtype
    if tensor.dtype != expected:
        raise CheckpointError(f"{where} has the type {_type(tensor.dtype)}")
    if part in _NOT_NEGATIVE and bool((tensor < 0).any()):
        raise CheckpointError(f"{where} is negative")
    if part == "step" and (float(tensor) > step or float(tensor) % 1 != 0):
        raise CheckpointError(f"{where} counts {float(tensor):g} steps, but {step:,} were done")


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite, in a fifth of the time of asking each."""
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
        return True  # what is not finite stays so in a sum
    return bool(torch.isfinite(tensor).all())  # or the sum of large ones was too large


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    if not is_finite(tensor):
        raise CheckpointError(
            f"{path.name}: {printable(name, keep='')} holds values that are not finite"
        )


def _both_floating(one: torch.dtype, other: torch.dtype) -> bool:
    return one.is_floating_point and other.is_floating_point and one.itemsize >= 2


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
