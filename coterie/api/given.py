"""Settings as they are given in Python: a mapping of dotted keys, or of nested ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import coterie.train as training  # its names are imported when first used
from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer, Resolved
from coterie.foundation.settings import shown
from coterie.presets import preset_layers

if TYPE_CHECKING:
    from coterie.train.settings import RunSettings


def resolve(
    target: str, layers: Sequence[Layer] = (), scale: str | None = None
) -> Resolved[RunSettings]:
    """Resolve a preset or settings file at one of its scales, and what is laid over it.

    Raises:
        SettingsError: there is no such preset, file or scale, or the settings do not validate.
    """
    return training.run_settings([*preset_layers(target, scale), *layers])


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
