"""What may stand at a key of a settings class, read from its annotations.

A key is followed through classes, lists, named entries and unions; which member of a union it leads
into depends on the kinds that were chosen.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic_core import PydanticUndefined

from coterie.foundation.settings import Settings, union

Key = tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """What an annotation admits.

    Attributes:
        union: a union of settings.
        model: one class of settings.
        item: the annotation of a list's items.
        entry: the annotation of a mapping's values.
        text: any text, paths included.
        choices: the texts of a closed list of them.
        numbers: which of bool, int and float.
        optional: null.
    """

    union: union | None = None
    model: type[Settings] | None = None
    item: Any = None
    entry: Any = None
    text: bool = False
    choices: tuple[str, ...] = ()
    numbers: frozenset[type] = frozenset()
    optional: bool = False

    @property
    def structured(self) -> bool:
        """Whether a mapping or a list may stand here."""
        parts = (self.union, self.model, self.item, self.entry)
        return any(part is not None for part in parts)

    @property
    def is_text(self) -> bool:
        """Whether only texts may stand here."""
        return bool(self.text or self.choices) and not self.structured and not self.numbers

    @property
    def is_texts(self) -> bool:
        """Whether a list of texts may stand here, and nothing else that has parts."""
        others = (self.union, self.model, self.entry)
        if self.item is None or any(part is not None for part in others):
            return False
        return shape_of(self.item).is_text


class Place(NamedTuple):
    """The shape at a key, and what stands there when nobody names it."""

    shape: Shape
    default: Any = None


def shape_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
    """Return what an annotation admits."""
    try:
        return _cached_shape_of(annotation, metadata)
    except TypeError:  # an outsider's metadata that cannot be hashed
        return _shape_of(annotation, metadata)


def _shape_of(annotation: Any, metadata: tuple[Any, ...]) -> Shape:
    found: dict[str, Any] = {"choices": (), "numbers": frozenset()}
    for each, extra in _alternatives(annotation, metadata):
        closed = next((item for item in extra if isinstance(item, union)), None)
        origin, arguments = typing.get_origin(each), typing.get_args(each)
        if closed is not None:
            found["union"] = closed
        elif each is None or each is type(None):
            found["optional"] = True
        elif origin is Literal:
            found["choices"] += tuple(item for item in arguments if isinstance(item, str))
            found["numbers"] |= {type(item) for item in arguments} & {bool, int, float}
        elif origin in (tuple, list):
            found["item"] = arguments[0]
        elif origin is dict:
            found["entry"] = arguments[1]
        elif isinstance(each, type) and issubclass(each, Settings):
            found["model"] = each
        elif each in (str, Path):
            found["text"] = True
        elif each in (bool, int, float):
            found["numbers"] |= {each}
    return Shape(**found)


_cached_shape_of = lru_cache(maxsize=4096)(_shape_of)


def _alternatives(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    if any(isinstance(extra, union) for extra in metadata):
        yield annotation, metadata
    elif typing.get_origin(annotation) is Annotated:
        inner, *extra = typing.get_args(annotation)
        yield from _alternatives(inner, tuple(extra))
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _alternatives(each, ())
    else:
        yield annotation, metadata


def model_at(place: Place, kind: Any) -> type[Settings] | None:
    """Return the class that describes a part.

    Args:
        kind: the kind that was chosen for it; None: nobody chose.
    """
    shape = place.shape
    if shape.union is None:
        return shape.model
    if kind is None and isinstance(place.default, Settings):
        return type(place.default)
    return shape.union.member(kind)


def below(place: Place, model: type[Settings] | None, part: str) -> Place | None:
    """Follow a key by one part; `model` is the class at `place`. `None` if there is no such."""
    shape, default = place
    if model is not None:
        info = model.model_fields.get(part)
        if info is None:
            return None
        if type(default) is model:
            own = getattr(default, part)
        else:
            own = info.get_default(call_default_factory=True, validated_data={})
            own = None if own is PydanticUndefined else own
        return Place(shape_of(info.annotation, tuple(info.metadata)), own)
    if shape.entry is not None:
        return Place(
            shape_of(shape.entry), default.get(part) if isinstance(default, dict) else None
        )
    if shape.item is not None and part.isdecimal():
        return Place(shape_of(shape.item))
    return None


class Schema:
    """A settings class, and the kinds chosen for its parts."""

    def __init__(self, cls: type[Settings], kinds: Mapping[Key, Any]) -> None:
        self.root = Place(Shape(model=cls))
        self.kinds = kinds

    def at(self, key: Key) -> Place | None:
        """Return the place that a key leads to, `None` if there is no such."""
        place: Place | None = self.root
        for depth, part in enumerate(key):
            if place is None:
                return None
            place = self.below(key[:depth], place, part)
        return place

    def below(self, key: Key, place: Place | None, part: str) -> Place | None:
        """Return the place one part further than `key`, which leads to `place`."""
        if place is None:
            return None
        return below(place, model_at(place, self.kinds.get(key)), part)

    def names(self, key: Key) -> list[str]:
        place = self.at(key)
        model = None if place is None else model_at(place, self.kinds.get(key))
        return [] if model is None else list(model.model_fields)

    def renamed(self, key: Key) -> str | None:
        """Return what a key of earlier versions is called now; None where it never was one."""
        place = self.at(key[:-1])
        model = None if place is None else model_at(place, self.kinds.get(key[:-1]))
        return None if model is None else model.renamed.get(key[-1])

    def paths(self, listed: Iterable[Key] = ()) -> Iterator[Key]:
        """Yield the key of every field.

        Args:
            listed: keys in use, which tell the entries of lists and mappings.
        """
        known = {key[:length] for key in listed for length in range(1, len(key) + 1)}
        yield from self._paths((), self.root, known)

    def _paths(self, key: Key, place: Place, known: set[Key]) -> Iterator[Key]:
        if key:
            yield key
        model = model_at(place, self.kinds.get(key))
        if model is not None:
            names = list(model.model_fields)
        else:
            names = sorted({each[len(key)] for each in known
                            if len(each) > len(key) and each[: len(key)] == key})  # fmt: skip
        for name in names:
            inner = below(place, model, name)
            if inner is not None:
                yield from self._paths((*key, name), inner, known)
