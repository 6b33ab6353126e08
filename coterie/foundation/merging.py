"""Layers of settings laid over one another: a tree that knows where each value came from.

Only what somebody named stands in the tree. Defaults come in at the very end, so that a value can
never be taken for a default, nor a default for a value, whatever order things were written in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel

from coterie.foundation.errors import SettingsError
from coterie.foundation.reading import as_texts
from coterie.foundation.records import MAX_DEPTH, Scalar
from coterie.foundation.schema import Key, Place, Schema, Shape, below, model_at
from coterie.foundation.settings import Settings

_DEFAULT = -1  # the depth of values that nobody named


class Mark(NamedTuple):
    """The depth of a layer, where, in words, a value of it came from, and when within the layer."""

    depth: int
    origin: str
    order: int = 0


@dataclass
class Node:
    """One place of the tree: a leaf's value, a part's fields or a list's items."""

    mark: Mark
    value: Any = None
    parts: "dict[str, Node] | None" = None
    items: "list[Node] | None" = None
    kinds: list[tuple[int, Any]] = field(default_factory=list)  # depth and kind, as they were named

    def below(self) -> "Iterator[tuple[str, Node]]":
        """Yield the nodes directly below with their names."""
        yield from (self.parts or {}).items()
        yield from ((str(number), item) for number, item in enumerate(self.items or ()))

    def latest(self) -> Mark:
        """Return the mark of the last layer that named anything here or below."""
        marks = [self.mark, *(node.latest() for _, node in self.below())]
        return max(marks, key=lambda mark: (mark.depth, mark.order))

    def kind(self, default: Any) -> tuple[Any, int]:
        """Return the kind chosen for a part and the depth of the layer that changed it last."""
        kind, changed = default, _DEFAULT
        for depth, named in self.kinds:
            if named != kind:
                kind, changed = named, depth
        return kind, changed


class Tree:
    """The layers merged so far.

    Attributes:
        problems: keys that cannot be followed, with what is wrong and where they came from.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.root: Node = Node(Mark(_DEFAULT, "default"), parts={})
        self.problems: list[tuple[Key, str, str]] = []

    def lay(self, key: Key, value: Any, mark: Mark) -> None:
        """Lay a value over what stands at a key."""
        for part in reversed(key):
            value = {part: value}
        self.root = self._lay(self.root, (), value, self.schema.root, mark)

    def _lay(
        self, node: Node | None, key: Key, value: Any, place: Place | None, mark: Mark
    ) -> Node:
        if len(key) > MAX_DEPTH:
            raise SettingsError(f"{'.'.join(key[:5])}… is nested too deeply.")
        shape = Shape() if place is None else place.shape
        if isinstance(value, BaseModel):  # a whole part, from Python: nothing below it is kept
            node, value = None, _fields(value)
        if shape.union is not None:
            value = _kind_for_short(value, shape)
        elif shape.model is not None and shape.model.alone and isinstance(value, str):
            value = {shape.model.alone: value}
        if isinstance(value, list | tuple):
            items = [
                self._lay(None, (*key, str(i)), item, self._below(key, place, str(i)), mark)
                for i, item in enumerate(value)
            ]
            return Node(mark, items=items)
        if not isinstance(value, Mapping):
            return Node(mark, value)
        names = {str(name): inner for name, inner in value.items()}
        listed = self._list_at(node, key, place)
        if listed is not None and names and all(name.isdecimal() for name in names):
            return self._lay_items(listed, key, names, place, mark)
        if node is None or node.parts is None or (not names and shape.entry is not None):
            node = Node(mark, parts={})
        parts = dict(node.parts or {})
        self._drop_replaced(parts, names, place, mark)
        for name, inner in names.items():
            there = self._below(key, place, name)
            parts[name] = self._lay(parts.get(name), (*key, name), inner, there, mark)
        kinds = node.kinds
        if "kind" in names:
            kinds = [*kinds, (mark.depth, plain(as_kind(names["kind"])))]
        return Node(node.mark, parts=parts, kinds=kinds)

    @staticmethod
    def _drop_replaced(
        parts: dict[str, Node],
        names: Mapping[str, Any],
        place: Place | None,
        mark: Mark,
    ) -> None:
        """Drop what lower layers named of keys in whose stead this one names another."""
        model = None if place is None else place.shape.model
        for name, others in ({} if model is None else model.instead).items():
            stands = name in parts and plain(parts[name].value) is not None
            if stands or plain(names.get(name)) is None:
                continue
            for other in others:
                if other in parts and parts[other].latest().depth < mark.depth:
                    del parts[other]

    def _below(self, key: Key, place: Place | None, part: str) -> Place | None:
        return self.schema.below(key, place, part)

    def _list_at(self, node: Node | None, key: Key, place: Place | None) -> Node | None:
        """Return the list at a place, the default one where nobody named another."""
        if node is not None:
            return node if node.items is not None else None
        if place is None or not isinstance(place.default, tuple | list):
            return None
        return self._lay(None, key, place.default, place, Mark(_DEFAULT, "default"))

    def _lay_items(
        self, node: Node, key: Key, names: Mapping[str, Any], place: Place | None, mark: Mark
    ) -> Node:
        items = list(node.items or ())
        for name, inner in names.items():
            if len(name) > 9 or int(name) >= len(items):
                last = f"0 to {len(items) - 1}" if items else "none: it is empty"
                told = f"there is no item {name[:20]} in this list; choices: {last}"
                self.problems.append(((*key, name), told, mark.origin))
                continue
            number, there = int(name), self._below(key, place, name)
            items[number] = self._lay(items[number], (*key, name), inner, there, mark)
        return Node(node.mark, items=items)

    def values(self) -> dict[str, Any]:
        """Return the settings for validation: what was named, and defaults of parts named partly.

        Values from layers below the one that changed a part's kind are left out if the new kind
        does not know them.
        """
        return self._finish(self.root, self.schema.root)

    def _finish(self, node: Node, place: Place | None) -> Any:
        if node.items is not None:
            return [self._finish(item, _below(place, None, str(i)))
                    for i, item in enumerate(node.items)]  # fmt: skip
        if node.parts is None:
            return plain(node.value) if place is None else _leaf(node.value, place.shape)
        if place is None:
            return {name: self._finish(inner, None) for name, inner in node.parts.items()}
        kind, changed = node.kind(getattr(place.default, "kind", None))
        model = model_at(place, kind)
        finished = {}
        for name, inner in list(node.parts.items()):
            there = _below(place, model, name)
            if there is None and model is not None and inner.latest().depth < changed:
                del node.parts[name]  # of the kind before
            else:
                finished[name] = self._finish(inner, there)
        return _defaults(place, model, finished) | finished

    def provenance(self) -> dict[Key, str]:
        """Return where each value came from, by key; lists count as one value as well."""
        found: dict[Key, str] = {}
        for key, node in self.nodes():
            mark = node.latest() if node.items is not None else node.mark
            if not node.parts and mark.depth != _DEFAULT:
                found[key] = mark.origin
        return found

    def origins(self, key: Key) -> list[str]:
        """Return where the values at and below a key came from, the last layer's first.

        Where nothing is known of the key, those of the nearest part above it.
        """
        node = self.root
        for part in key:
            inner = dict(node.below()).get(part)
            if inner is None:
                break
            node = inner
        marks = [each.mark for _, each in _walk(node, ()) if not each.parts]
        marks.sort(key=lambda mark: (-mark.depth, -mark.order))
        return list(dict.fromkeys(mark.origin for mark in marks if mark.depth != _DEFAULT))

    def nodes(self) -> Iterator[tuple[Key, Node]]:
        """Yield every node with its key."""
        yield from _walk(self.root, ())


def _walk(node: Node, key: Key) -> Iterator[tuple[Key, Node]]:
    yield key, node
    for name, inner in node.below():
        yield from _walk(inner, (*key, name))


def _below(place: Place | None, model: type[Settings] | None, part: str) -> Place | None:
    return None if place is None else below(place, model, part)


def _defaults(
    place: Place, model: type[Settings] | None, named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a part that was named partly takes from the default that it stands for."""
    if isinstance(place.default, Mapping) and named:
        return {name: value for name, value in place.default.items() if name not in named}
    if model is None or type(place.default) is not model or not named:
        return {}
    known = {name for name, value in named.items() if value is not None}
    replaced = {other for name in known for other in model.instead.get(name, ())}
    return {name: getattr(place.default, name) for name in model.model_fields
            if name not in named and name not in replaced}  # fmt: skip


def _fields(value: BaseModel) -> dict[str, Any]:
    derived = value.derived if isinstance(value, Settings) else ()
    return {name: getattr(value, name) for name in type(value).model_fields if name not in derived}


def _kind_for_short(value: Any, shape: Shape) -> Any:
    """Return `{kind: rms}` for `rms`, where a kind may stand."""
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, Scalar) and value.value is None and not shape.optional:
        return {"kind": value.text}  # there is a kind “null”
    return value


def _leaf(value: Any, shape: Shape) -> Any:
    if shape.is_text or shape.is_texts:
        return as_texts(value, shape)
    if isinstance(value, Scalar) and isinstance(value.value, bool) and shape.numbers:
        return value.value if bool in shape.numbers else value.text  # `true` is not 1
    return plain(value)


def as_kind(value: Any) -> Any:
    """Return a kind as it was written: `null` is one."""
    return value.text if isinstance(value, Scalar) else value


def plain(value: Any) -> Any:
    """Return values without how they were written."""
    if isinstance(value, Scalar):
        return value.value
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def chosen_kinds(values: Any, key: Key, kinds: dict[Key, Any]) -> None:
    """Note the kinds that values name, by key, over those noted before.

    Any text may be a kind in short; where it is not, nobody asks for it.
    """
    if isinstance(values, BaseModel):
        values = _fields(values)
        _forget(kinds, key)
    if isinstance(values, Mapping):
        if "kind" in values:
            kinds[key] = as_kind(values["kind"])
        for name, inner in values.items():
            chosen_kinds(inner, (*key, str(name)), kinds)
        return
    if values is None or isinstance(values, list | tuple | Scalar):
        _forget(kinds, key)
    if isinstance(values, str):
        kinds[key] = values
    elif isinstance(values, list | tuple):
        for number, inner in enumerate(values):
            chosen_kinds(inner, (*key, str(number)), kinds)


def _forget(kinds: dict[Key, Any], key: Key) -> None:
    for old in [each for each in kinds if each[: len(key)] == key]:
        del kinds[old]
