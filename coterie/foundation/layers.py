"""Reading settings: layers of mappings merged before validation, every value's origin remembered.

A run's settings are a preset, perhaps an overlay file or two, and `key=value` words. Each is a
`Layer`. They are merged deeply (later wins) and validated once, so that a preset keeps what was not
named; every error is told at once, with where its value came from and the nearest valid name.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.records import parse_yaml, read_yaml
from coterie.foundation.settings import Settings, union

S = TypeVar("S", bound=Settings)
Key = tuple[str, ...]

_WHERE_KEYS_ARE = "Run: coterie train PRESET --dry-run  to see every key with its value."


@dataclass(frozen=True)
class Layer:
    """One source of settings: a name for the reader and a nested mapping."""

    name: str
    values: Mapping[str, Any]
    origins: Mapping[Key, str] = field(default_factory=dict)

    def origin(self, key: Key) -> str:
        """Return where a value of this layer came from, as precisely as is known."""
        return self.origins.get(key, self.name)


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """Validated settings and, for each value that was named, the layer it came from."""

    settings: S
    provenance: Mapping[Key, str]

    def origin(self, key: Key) -> str:
        """Return where the value at `key` came from; “default” when nobody named it."""
        return self.provenance.get(key, "default")


def file_layer(path: Path | str) -> Layer:
    """Read a YAML file as a layer.

    Raises:
        SettingsError: there is no such file, or it holds no mapping.
    """
    path = Path(path)
    try:
        values = read_yaml(path)
    except FileNotFoundError as error:
        raise SettingsError(f"There is no settings file {path}.") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds {type(values).__name__}, but settings are key: value.")
    return Layer(str(path), values)


def overrides_layer(words: Iterable[str]) -> Layer:
    """Read `key.path=value` words as a layer; values are YAML, the last word for a key wins.

    Raises:
        SettingsError: a word has no `=` or an empty key, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            raise SettingsError(
                f"“{word}” is not key=value.", hint="Write for example train.steps=200"
            )
        value = parse_yaml(text, f"the value of {name}") if text.strip() else ""
        merged = _nested(key, value)
        values = merge(values, merged)
        for path, _ in leaves(merged):
            origins[path] = f"command line: {word}"
    return Layer("command line", values, origins)


def _nested(key: Key, value: Any) -> dict[str, Any]:
    for part in reversed(key):
        value = {part: value}
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; mappings merge, anything else is replaced."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = merge(below, value)
        elif isinstance(below, Mapping) and isinstance(value, str) and "kind" in below:
            merged[name] = merge(below, {"kind": value})  # `norm=layer` keeps what both kinds know
        elif isinstance(below, str) and isinstance(value, Mapping):
            merged[name] = merge({"kind": below}, value)  # `norm: rms` below `norm.epsilon=1e-6`
        elif isinstance(below, list | tuple) and _are_indices(value, len(below)):
            numbered = {str(index): item for index, item in enumerate(below)}
            merged[name] = list(merge(numbered, value).values())  # `experts.0.count=4`
        else:
            merged[name] = dict(value) if isinstance(value, Mapping) else value
    return merged


def _are_indices(value: Any, length: int) -> TypeGuard[Mapping[str, Any]]:
    """Whether a mapping's names are positions in a list of some length."""
    names = value if isinstance(value, Mapping) else ()
    return bool(names) and all(str(name).isdigit() and int(name) < length for name in names)


def leaves(values: Mapping[str, Any], prefix: Key = ()) -> Iterable[tuple[Key, Any]]:
    """Yield every (key path, value) of a nested mapping that is not itself a mapping."""
    for name, value in values.items():
        path = (*prefix, str(name))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def load_settings(
    cls: type[S], layers: Sequence[Layer], hint: str = _WHERE_KEYS_ARE
) -> Resolved[S]:
    """Merge layers (the last wins) and validate them as `cls`.

    Args:
        cls: the settings class.
        layers: where values come from.
        hint: what the reader of an error is told to run.

    When a later layer chooses another `kind` for a part, values that the part inherited from
    earlier layers and that the new kind does not know are dropped; those it knows are kept.

    Raises:
        SettingsError: anything is wrong; every problem is listed, with its origin and the nearest
            valid name.
    """
    merged = _Merged(_with_defaults(cls, layers[0].values) if layers else {})
    for layer in layers:
        merged.lay(layer)
    while True:
        try:
            settings = cls.model_validate(merged.values)
        except ValidationError as error:
            stale = [key for key in map(_key, _unknown(error)) if merged.is_stale(key)]
            if not stale:
                raise _explain(cls, error, merged, hint) from error
            for key in stale:
                merged.drop(key)
        else:
            return Resolved(settings, {key: origin for key, (_, origin) in merged.origins.items()})


def _with_defaults(cls: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a preset leaves to defaults, so that a later layer can name a part of it."""
    try:
        return cls.model_validate(dict(values)).model_dump()
    except ValidationError:
        return dict(values)  # told once, with everything else, when all layers are merged


class _Merged:
    """The values merged so far, and for each named one the depth and origin of its layer."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self.values = defaults
        self.origins: dict[Key, tuple[int, str]] = {}
        self._depth = -1

    def lay(self, layer: Layer) -> None:
        """Lay the next layer over what is there."""
        self._depth += 1
        before, self.values = self.values, merge(self.values, layer.values)
        for path, value in leaves(layer.values):
            stands_for_kind = isinstance(value, str) and isinstance(
                _get(self.values, path), Mapping
            )
            target = (*path, "kind") if stands_for_kind else path
            for old in [key for key in self.origins if key[: len(target)] == target]:
                del self.origins[old]
            self.origins[target] = (self._depth, layer.origin(path))
            if target[-1] == "kind":
                self._forget_defaults(target[:-1], before)

    def _forget_defaults(self, part: Key, before: Mapping[str, Any]) -> None:
        """Where a part's kind changed, drop the old kind's defaults: nobody asked for them."""
        old = _get(before, part)
        if not isinstance(old, Mapping) or old.get("kind") == _get(self.values, (*part, "kind")):
            return
        for name in old:
            key = (*part, name)
            if not any(path[: len(key)] == key for path in self.origins):
                self.drop(key)

    def is_stale(self, key: Key) -> bool:
        """Whether an unknown key was inherited from before the layer that chose its part's kind."""
        kind = self.origins.get((*key[:-1], "kind"))
        own = [depth for path, (depth, _) in self.origins.items() if path[: len(key)] == key]
        return kind is not None and max(own, default=-1) < kind[0]

    def drop(self, key: Key) -> None:
        """Forget a value and its origins."""
        values = self.values
        for part in key[:-1]:
            values[part] = dict(values[part])
            values = values[part]
        values.pop(key[-1], None)
        for old in [path for path in self.origins if path[: len(key)] == key]:
            del self.origins[old]

    def origins_of(self, key: Key) -> list[str]:
        """Return where the values at and below a key came from."""
        found = {origin for path, (_, origin) in self.origins.items() if path[: len(key)] == key}
        return sorted(found)


def _get(values: Any, key: Key) -> Any:
    for part in key:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, list | tuple) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values


def _key(location: Sequence[str | int]) -> Key:
    return tuple(str(part) for part in location)


def _unknown(error: ValidationError) -> Iterable[Sequence[str | int]]:
    return (item["loc"] for item in error.errors() if item["type"] == "extra_forbidden")


def _explain(
    cls: type[Settings], error: ValidationError, merged: _Merged, hint: str
) -> SettingsError:
    """Turn pydantic's report into lines for the reader."""
    lines = ["  " + _explain_one(cls, problem, merged) for problem in error.errors()]
    count = f"{len(lines)} problem" + ("s" if len(lines) > 1 else "")
    return SettingsError(
        f"The settings have {count}:\n" + "\n".join(lines),
        hint=hint,
    )


def _explain_one(cls: type[Settings], problem: Any, merged: _Merged) -> str:
    key = _key(problem["loc"])
    name = ".".join(key) or "the settings as a whole"
    if problem["type"] == "missing":
        return f"{name}: missing, and it has no default"
    if problem["type"] == "extra_forbidden":
        text = f"unknown key; {nearest(key[-1], field_names(cls, key[:-1], merged.values))}"
    else:
        message = problem["msg"].removeprefix("Value error, ")
        given = problem.get("input")
        text = message[:1].lower() + message[1:]
        if given is None or isinstance(given, str | int | float | bool):
            text += f", got {given!r}"
    origins = merged.origins_of(key) if key else []
    return f"{name}: {text}" + (f"  [{'; '.join(origins[:2])}]" if origins else "")


def field_names(cls: type[BaseModel], key: Key, values: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that a part of a settings class has.

    Args:
        cls: the class of the whole.
        key: the path to the part.
        values: the whole's values, which decide the members of unions.
    """
    current: Any = cls
    for depth, part in enumerate(key):
        current = _step(current, part, _get(values, key[: depth + 1]))
        if current is None:
            return []
    return list(current.model_fields) if _is_model(current) else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _step(current: Any, part: str, value: Any) -> Any:
    """Follow one part of a path into an annotation; `None` when it cannot be followed."""
    if not _is_model(current):  # a tuple or mapping: the part is an index or a name
        inner = [each for each in typing.get_args(current) if each not in (str, int, Ellipsis)]
        return _resolve(inner[0], value) if inner else None
    info = current.model_fields.get(part)
    if info is None:
        return None
    for extra in info.metadata:
        if isinstance(extra, union):
            return _member(extra, value)
    return _resolve(info.annotation, value)


def _resolve(annotation: Any, value: Any) -> Any:
    """Look through optional and annotated types to a settings class or a container of them."""
    if _is_model(annotation) or typing.get_origin(annotation) in (dict, tuple, list):
        return annotation
    for extra in typing.get_args(annotation)[1:]:
        if isinstance(extra, union):
            return _member(extra, value)
    inner = (_resolve(each, value) for each in typing.get_args(annotation))
    return next((each for each in inner if each is not None), None)


def _member(extra: union, value: Any) -> type[Settings] | None:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind is None and len(extra.members) == 1:
        return next(iter(extra.members.values()))
    return extra.members.get(kind) if isinstance(kind, str) else None


def dump_yaml(settings: Settings) -> str:
    """Return settings as YAML text that reads back to equal settings."""
    return yaml.safe_dump(
        settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )
