"""What each key of a run's settings means: its type, default, choices, and who sets it.

Everything is read from the settings classes and the presets, so it cannot differ from what runs.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.merging import plain
from coterie.foundation.schema import Shape, shape_of
from coterie.foundation.settings import Settings
from coterie.foundation.synonyms import meant_by
from coterie.presets import FULL, preset_layers, preset_names, preset_scales
from coterie.train.settings import RunSettings

ITEM, NAME = "N", "NAME"  # stand for the number of a list's item, and for a name of the user's
_NUMBERS = ((bool, "true or false"), (int, "integer"), (float, "number"))
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


@dataclass(frozen=True)
class Meaning:
    """A key in one of the places where it may stand.

    Attributes:
        key: dotted; `N` stands for an item's number, `NAME` for any name.
        description: what it is, in a phrase.
        type: what may stand there, in words.
        default: as a JSON value; None also where there is none.
        required: whether there is no default.
        kinds: the kinds above that have it: `model.attention: grouped`; none: it is always there.
        choices: what it may be, each with a line about it.
        below: the names of the keys under it.
    """

    key: str
    description: str
    type: str
    default: Any = None
    required: bool = False
    kinds: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """A key, wherever it may stand, and the presets that set it.

    Attributes:
        key: dotted.
        meanings: one for each way in which it is defined; those that differ in nothing but the
            kinds above are one.
        presets: what is set there by each preset, and by a scale of it where that differs.
    """

    key: str
    meanings: tuple[Meaning, ...]
    presets: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def explain(key: str) -> Explanation:
    """Explain a key: dotted, or its end or another tool's word where only one is meant.

    Raises:
        SettingsError: there is no such key; the message names the nearest.
    """
    known = meanings()
    found = _find(key, list(known))
    return Explanation(found, known[found], _set_by(tuple(found.split("."))))


@cache
def meanings() -> dict[str, tuple[Meaning, ...]]:
    """Return every key of a run's settings, in the order in which they are declared."""
    found: dict[str, list[Meaning]] = {}
    for meaning in _walk(RunSettings, None, (), (), ()):
        there = found.setdefault(meaning.key, [])
        for number, other in enumerate(there):
            if replace(meaning, kinds=other.kinds) == other:
                kinds = tuple(dict.fromkeys((*other.kinds, *meaning.kinds)))
                there[number] = replace(other, kinds=kinds)
                break
        else:
            there.append(meaning)
    return {key: tuple(each) for key, each in found.items()}


def _find(key: str, known: list[str]) -> str:
    wanted = ".".join(ITEM if part.isdecimal() else part for part in key.split("."))
    if wanted in known:
        return wanted
    pattern = wanted.split(".")
    for each in known:
        parts = each.split(".")
        if len(parts) == len(pattern) and all(
            mine in (theirs, NAME) for mine, theirs in zip(parts, pattern, strict=True)
        ):
            return each
    ends = [each for each in known if each.endswith(f".{wanted}")] or meant_by(key, known)
    # What every layer has is meant before what named variations of one may have as well.
    ends = [each for each in ends if NAME not in each.split(".")] or ends
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise SettingsError(f"“{key}” may be any of: {', '.join(ends)}", hint="Name one of them.")
    above = key.rpartition(".")[0]
    beside = [each for each in known if each.rpartition(".")[0] == above]
    raise SettingsError(
        f"There is no setting “{key}”; {nearest(key, beside or known, known)}",
        hint="Run: coterie settings  to see the sections.",
    )


def _walk(
    model: type[Settings],
    default: Any,
    path: tuple[str, ...],
    kinds: tuple[str, ...],
    above: tuple[type, ...],
) -> Iterator[Meaning]:
    """Yield the keys of a class and all below them."""
    for name, info in model.model_fields.items():
        if name == "kind":
            continue  # it is the choice of its part
        own = getattr(default, name) if type(default) is model else _default(info)
        shape = shape_of(info.annotation, tuple(info.metadata))
        key = (*path, name)
        yield _meaning(".".join(key), info, shape, own, kinds)
        if model not in above:  # a part may hold parts of its own sort
            yield from _below(shape, own, key, kinds, (*above, model))


def _below(
    shape: Shape,
    default: Any,
    key: tuple[str, ...],
    kinds: tuple[str, ...],
    above: tuple[type, ...],
) -> Iterator[Meaning]:
    if shape.model is not None:
        yield from _walk(shape.model, default, key, kinds, above)
    if shape.union is not None:
        for kind, member in shape.union.members.items():
            only = len(shape.union.members) == 1
            chosen = kinds if only else (f"{'.'.join(key)}: {kind}",)
            yield from _walk(member, default, key, chosen, above)
    for inner, part in ((shape.item, ITEM), (shape.entry, NAME)):
        if inner is not None:
            yield from _below(shape_of(inner), None, (*key, part), kinds, above)


def _default(info: FieldInfo) -> Any:
    value = info.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def _meaning(
    key: str, info: FieldInfo, shape: Shape, default: Any, kinds: tuple[str, ...]
) -> Meaning:
    inner = shape if shape.item is None else shape_of(shape.item)
    members = {} if inner.union is None else inner.union.members
    model = inner.model
    choices = [(kind, _first_line(member)) for kind, member in members.items()]
    below = [name for each in ([model] if model else members.values())
             for name in each.model_fields if name != "kind"]  # fmt: skip
    return Meaning(
        key=key,
        description=info.description or (_first_line(model) if model else ""),
        type=_type(shape, tuple(info.metadata)),
        default=to_jsonable_python(default),
        required=info.is_required(),
        kinds=kinds,
        choices=tuple(choices) or tuple((choice, "") for choice in inner.choices),
        below=tuple(dict.fromkeys(below)),
    )


def _first_line(member: type[Settings]) -> str:
    """Return the first sentence about a class: its file's, where its own only names it."""
    told = member.__doc__ or ""
    if told.startswith("Settings of"):
        told = sys.modules[member.__module__].__doc__ or told
    text = " ".join(told.strip().split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "." if text else ""


def _type(shape: Shape, metadata: tuple[Any, ...] = ()) -> str:
    """Return what may stand at a place, in words."""
    words = [name for kind, name in _NUMBERS if kind in shape.numbers]
    if "number" in words and "integer" in words:
        words.remove("integer")
    if shape.text:
        words.append("text")
    if shape.choices:
        words.append("one of " + ", ".join(shape.choices))
    if shape.item is not None:
        words.append(f"list of {_type(shape_of(shape.item))}")
    if shape.entry is not None:
        words.append("mapping of names")
    if shape.union is not None:
        words.append("one of several kinds" if len(shape.union.members) > 1 else "a part")
    if shape.model is not None:
        words.append("a section")
    told = " or ".join(words) or "any value"
    bounds = [f"{sign} {getattr(each, name)}" for each in metadata for name, sign in _BOUNDS
              if getattr(each, name, None) is not None]  # fmt: skip
    told += f" {' and '.join(bounds)}" if bounds else ""
    return f"{told}, or null" if shape.optional else told


def _set_by(path: tuple[str, ...]) -> dict[str, Any]:
    """Return what each preset sets at a key, and what its scales set instead."""
    found: dict[str, Any] = {}
    for label, layer in _presets().items():
        values = list(_values_at(layer, path))
        if values:
            found[label] = values[0] if len(values) == 1 else values
    return found


@cache
def _presets() -> dict[str, Any]:
    """Return what each preset holds and, under `NAME scale=SCALE`, what a scale changes of it."""
    return {
        name if scale == FULL else f"{name} scale={scale}": plain(
            preset_layers(name, scale)[-1].values
        )
        for name in preset_names()
        for scale in preset_scales(name)
    }


def _values_at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, list) and path[0] == ITEM:
        for each in value:
            yield from _values_at(each, path[1:])
    elif isinstance(value, Mapping):
        for part in value if path[0] == NAME else (path[0],):
            if part in value:
                yield from _values_at(value[part], path[1:])


def shown_value(value: Any, width: int = 60) -> str:
    """Return a value as it is written in YAML, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\n", "⏎") if isinstance(value, str) else text
    text = text or '""'
    return text if len(text) <= width else text[: width - 1] + "…"
