"""Settings as they are given in Python: a mapping of dotted keys, or of nested ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import coterie.train as training  # its names are imported when first used
from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.layers import Layer, Resolved
from coterie.foundation.settings import shown
from coterie.presets import preset_layers

if TYPE_CHECKING:
    from coterie.train.settings import RunSettings


MODES: Mapping[str, Mapping[str, Any]] = {
    "speed": {
        "activation_checkpointing": False, "compile": "auto", "cuda_graph": True, "prefetch": 4,
    },
    "memory": {
        "activation_checkpointing": True, "compile": False, "cuda_graph": False, "prefetch": 1,
        "save_in_background": False,
    },
}  # fmt: skip
"""What a mode says of `train`: only what changes time and memory, and no loss but by rounding."""


def resolve(
    target: str, layers: Sequence[Layer] = (), scale: str | None = None, mode: str | None = None
) -> Resolved[RunSettings]:
    """Resolve a preset or settings file at one of its scales, and what is laid over it.

    Args:
        target: the preset's name or the file's path.
        layers: laid over all else.
        scale: one of the preset's.
        mode: a name in `MODES`, laid under the layers.

    Raises:
        SettingsError: there is no such preset, file, scale or mode, or the settings do not
            validate, or name roles that the decoder has not.
    """
    if mode is not None and mode not in MODES:
        raise SettingsError(f"There is no mode “{shown(mode)}”; {nearest(mode, MODES)}")
    named = [] if mode is None else [Layer(f"mode {mode}", {"train": MODES[mode]})]
    found = training.run_settings([*preset_layers(target, scale), *named, *layers])
    training.require_roles(found)
    return found


def layer_of(given: Mapping[str, Any], name: str = "given in Python") -> Layer:
    """Return settings as a layer: `{"train.steps": 200}` as well as `{"train": {"steps": 200}}`.

    Raises:
        SettingsError: a key is not a text, or a part of it is empty.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str) or not all(key.split(".")):
            raise SettingsError(
                f"“{shown(key)}” is not the name of a setting.",
                hint='Write for example {"train.steps": 200}',
            )
        _lay(values, key.split("."), value)
    return Layer(name, values)


def _lay(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    name, *rest = path
    there = values.get(name)
    if rest or isinstance(value, Mapping):
        if not isinstance(there, dict):  # a text there is a kind in short, and stays it
            there = values[name] = {} if there is None else {"kind": there}
        parts = [(rest, value)] if rest else [([str(part)], each) for part, each in value.items()]
        for inner, each in parts:
            _lay(there, inner, each)
    elif isinstance(there, dict) and isinstance(value, str):
        there["kind"] = value
    else:
        values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
