"""What earlier versions called settings and tensors, for reading the runs that they wrote.

Runs and checkpoints keep what was written; names are changed while it is read. In new files and on
the command line the old names are refused, each with the new one.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MLP_KINDS: Mapping[str, Mapping[str, str]] = {
    "swiglu": {"kind": "gated", "activation": "silu"},
    "geglu": {"kind": "gated", "activation": "gelu"},
    "gelu": {"kind": "mlp", "activation": "gelu"},
    "squared_relu": {"kind": "mlp", "activation": "relu_squared"},
}
"""Kinds of an MLP, each with the values that stand for it now."""
_ACTIVATIONS = {"squared_relu": "relu_squared"}
_FEEDFORWARD = {
    "body": "mlp",
    "shared_body": "shared_mlp",
    "capacity": "capacity_factor",
    "compute": "kernel",
    "answer": "output",
}
_BLOCK = {"arrangement": "block_layout"}
_MODEL = {**_BLOCK, "ahead": "mtp"}
_TRAIN = {"accumulation": "gradient_accumulation", "recompute": "activation_checkpointing"}

# In a model's tensors, and behind an optimizer's name in those of its state.
_TENSORS = {
    r"(^|\.)ahead\.(?=\d+\.)": r"\1mtp.",
    r"(^|\.)structure\.(?=weight)": r"\1additive.0.",
    r"\.feedforward\.body\.": ".feedforward.mlp.",
}

CONFIG = "config.yaml"
_BESIDE = ("events.jsonl", "manifest.json", "origin.json", "checkpoints")


def is_written_by_a_run(path: Path) -> bool:
    """Whether a settings file is that of a run or of a checkpoint, and not one of a user's own."""
    return path.name == CONFIG and any((path.parent / name).exists() for name in _BESIDE)


def migrated_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings as they are called now; those that are current stay as they are."""
    found = dict(values)
    if (found.get("data") or {}).get("mix") == {"kind": "single"}:
        found["data"] = {**found["data"], "mix": None}
    _change(found, "train", lambda train: _renamed(train, _TRAIN))
    _change(found, "model", _model)
    return found


def tensor_name(name: str) -> str:
    """Return what a tensor of a model or an optimizer's state is called now."""
    for old, new in _TENSORS.items():
        name = re.sub(old, new, name)
    return name


def _change(values: dict[str, Any], key: str, change: Callable[[dict[str, Any]], Any]) -> None:
    if isinstance(values.get(key), dict):
        values[key] = change(values[key])


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with some keys renamed; where both are there, nothing is lost."""
    return {(now if (now := names.get(k, k)) not in values else k): v for k, v in values.items()}


def _model(values: dict[str, Any]) -> dict[str, Any]:
    model = _renamed(values, _MODEL)
    if "structure" in model and "additive" not in model:
        structure = model.pop("structure")
        is_one = isinstance(structure, dict)
        model["additive"] = [{"kind": "structure", **structure}] if is_one else []
    for name, block in (model.get("blocks") or {}).items():
        if isinstance(block, dict):
            block = _renamed(block, _BLOCK)
            _change(block, "feedforward", _feedforward)
            model["blocks"] = {**model["blocks"], name: block}
    _change(model, "feedforward", _feedforward)
    return model


def _feedforward(layer: Any) -> Any:
    """Return a feed-forward layer's settings, or a part of them."""
    if isinstance(layer, list):
        return [_feedforward(each) for each in layer]
    if not isinstance(layer, dict):
        return layer
    inner = {key: _feedforward(value) for key, value in layer.items()}
    values = _renamed(inner, _FEEDFORWARD)
    kind, activation = values.get("kind"), values.get("activation")
    if isinstance(kind, str) and kind in MLP_KINDS:
        values |= MLP_KINDS[kind]
        if values.pop("approximate", "none") == "tanh":
            values["activation"] = "gelu_tanh"
    elif isinstance(activation, str) and activation in _ACTIVATIONS:
        values["activation"] = _ACTIVATIONS[activation]
    return values
