"""Reading records that others may have damaged: JSON and YAML, and models of what they must hold.

Every failure of a reader (depth, encoding, endless integers, names given twice, features nobody
asked for) becomes one sentence for the person who named the file; nothing else escapes from here.
"""

import json
import os
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.printable import printable

M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 1 << 28  # ten times the largest published tokenizer.json
MAX_DEPTH = 100  # of nested lists and mappings: far more than any record of ours needs


class _DamagedError(ValueError):
    """What is wrong with a text, in words; private, so that every caller sees a user error."""


def parse_json(content: bytes | str, what: str, error: type[UserError] = UserError) -> Any:
    """Parse JSON text strictly: UTF-8, no name twice in one object, finite numbers, bounded depth.

    Args:
        what: what it is, the beginning of a message: a path, or “line 3 of events.jsonl”.

    Raises:
        UserError: it is anything else; the message says what and where.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        _check_depth(value)
    except (RecursionError, MemoryError) as failure:
        raise error(f"{what} is not usable JSON: it is nested too deeply.") from failure
    except ValueError as failure:  # JSON, UTF-8, integers of thousands of digits
        raise error(f"{what} is not usable JSON: {printable(_first_line(failure))}") from failure
    return value


def read_json(path: Path | str, error: type[UserError] = UserError) -> Any:
    """Read a JSON file; see `parse_json`.

    Raises:
        FileNotFoundError: there is no such file; what that means is the caller's to say.
        UserError: it cannot be read, or is not JSON.
    """
    return parse_json(_read_bytes(path, error), str(path), error)


def read_model(model: type[M], path: Path | str, error: type[UserError] = UserError) -> M:
    """Read a JSON file and hold it to a pydantic model of what it must contain.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, or a value is missing, of another type or out of range.
    """
    return validated(model, read_json(path, error), str(path), error)


def validated(model: type[M], value: Any, what: str, error: type[UserError] = UserError) -> M:
    """Return a value as a pydantic model.

    Raises:
        UserError: it does not fit; the message names the first three entries that do not.
    """
    try:
        return model.model_validate(value)
    except ValidationError as failure:
        problems = []
        for item in failure.errors(include_url=False, include_context=False)[:3]:
            where = ".".join(str(part) for part in item["loc"]) or "the whole"
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{where}: {message[:1].lower() + message[1:]}")
        raise error(f"{what} is damaged: {printable('; '.join(problems))}") from failure


def _read_bytes(path: Path | str, error: type[UserError]) -> bytes:
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path} is not a regular file.")  # a pipe would block for ever
        if path.exists() and path.stat().st_size > MAX_BYTES:
            raise error(f"{path} has {path.stat().st_size:,} bytes, far more than it can need.")
        return path.read_bytes()
    except (FileNotFoundError, UserError):
        raise
    except (OSError, ValueError) as failure:  # ValueError: a NUL in the name
        reason = getattr(failure, "strerror", None) or str(failure)
        raise error(f"{path} cannot be read: {reason}.") from failure


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _DamagedError(f"“{twice}” is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _DamagedError(f"{name} is no number of JSON")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [
        inner
        for each in level
        if isinstance(each, dict | list)
        for inner in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            raise RecursionError


def _first_line(failure: BaseException) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]


class _Loader(yaml.SafeLoader):
    """Plain data and YAML 1.1 without traps: 1e-3 is a number; `on`, 12:30 and dates are words."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            self._refuse("an alias (*name)")
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            self._refuse("an anchor (&name)")
        if getattr(event, "tag", None) is not None:
            self._refuse(f"a tag ({event.tag})")
        if self.depth > MAX_DEPTH:
            raise RecursionError
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for name_node, value_node in node.value:
            name = self.construct_object(name_node, deep=True)
            if isinstance(name, Scalar) and name.value is not None:
                name = name.text
            if name is None or isinstance(name, list | dict | float | Scalar):
                raise _DamagedError(f"{_place(name_node)}a key must be a plain word")
            if name in found:
                raise _DamagedError(f"{_place(name_node)}“{name}” is given twice")
            found[name] = self.construct_object(value_node, deep=deep)
        return found

    def _refuse(self, feature: str) -> NoReturn:
        raise _DamagedError(f"{_place(self.peek_event())}{feature} is not plain data")


def _place(node: Any) -> str:
    return f"line {node.start_mark.line + 1}: "


_DROPPED = ("bool", "int", "float", "timestamp", "merge", "value")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _DROPPED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")
)
_Loader.add_implicit_resolver(  # no octal 017, no sexagesimal 12:30, no binary
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Scalar:
    """A number, truth value or null of a YAML text, and how it was written there."""

    value: bool | int | float | None
    text: str


class _WrittenLoader(_Loader):
    """Keeps how scalars were written, for readers that learn later whether a text was meant."""

    def construct_written(self, node: Any) -> Scalar | str:
        try:
            value = _Loader.yaml_constructors[node.tag](self, node)
        except ValueError:  # an integer of thousands of digits
            return node.value
        return Scalar(value, node.value)


for _name in ("bool", "int", "float", "null"):
    _WrittenLoader.add_constructor(f"tag:yaml.org,2002:{_name}", _WrittenLoader.construct_written)


def read_scalar(text: str) -> Scalar | str:
    """Return what a text means as one YAML scalar; nothing in it is syntax."""
    loader, text = _WrittenLoader(""), text.strip()
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if tag not in _WrittenLoader.yaml_constructors or tag.endswith(":str"):
        return text
    return loader.construct_written(yaml.ScalarNode(tag, text))


def parse_yaml(
    text: str, what: str, error: type[UserError] = SettingsError, *, written: bool = False
) -> Any:
    """Parse YAML text as plain data: mappings, lists, words, numbers, true, false, null.

    Args:
        what: what it is, the beginning of a message.
        written: whether numbers, truth values and nulls come as `Scalar`.

    Raises:
        UserError: it is not YAML, or uses what plain data does not need (anchors, aliases, tags, a
            key twice); the message names the line.
    """
    hint = "Check the indentation and the colons; a text with special characters needs quotes."
    try:
        return yaml.load(text, Loader=_WrittenLoader if written else _Loader)
    except (RecursionError, MemoryError) as failure:
        raise error(f"{what} is not usable YAML: it is nested too deeply.") from failure
    except yaml.YAMLError as failure:
        raise error(f"{what} is not valid YAML: {printable(failure)}", hint=hint) from failure
    except (ValueError, TypeError, AttributeError, OverflowError) as failure:
        reason = printable(_first_line(failure))
        raise error(f"{what} is not usable YAML: {reason}", hint=hint) from failure


def read_yaml(
    path: Path | str, error: type[UserError] = SettingsError, *, written: bool = False
) -> Any:
    """Read a YAML file; see `parse_yaml`.

    Raises:
        FileNotFoundError: there is no such file; what that means is the caller's to say.
        UserError: it cannot be read, is not UTF-8, or is not plain YAML.
    """
    try:
        text = _read_bytes(path, error).decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise error(f"{os.fspath(path)} is not UTF-8 text: {failure}") from failure
    return parse_yaml(text, str(path), error, written=written)


# Words that every YAML reads as themselves; any other text is written between double quotes.
_SAFE = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(?: [A-Za-z_(][A-Za-z0-9_.,/()-]*)*")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        plain = _SAFE.fullmatch(text) and text not in "ynYN" and read_scalar(text) == text
        plain = plain and self.resolve(yaml.ScalarNode, text, (True, False)).endswith(":str")
        style = None if plain else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def to_yaml(value: Any, width: int = 100) -> str:
    """Return plain data as YAML text that `parse_yaml`, or any other reader, reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
