"""Reading settings: layers of values merged before validation, every value's origin remembered.

A run's settings are a preset, perhaps an overlay file or two, and `key=value` words. Each is a
`Layer`. They are merged deeply (later wins) and validated once, so that a preset keeps what was not
named; every error is told at once, with where its value came from and the nearest valid name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from coterie.foundation.errors import SettingsError, UserError, nearest
from coterie.foundation.merging import Mark, Tree, chosen_kinds, plain
from coterie.foundation.migration import is_written_by_a_run, migrated_settings
from coterie.foundation.paths import expand_home
from coterie.foundation.printable import printable
from coterie.foundation.reading import parse_or_text, read_word
from coterie.foundation.records import MAX_DEPTH, read_yaml, to_yaml
from coterie.foundation.schema import Key, Schema
from coterie.foundation.settings import Settings, shown
from coterie.foundation.synonyms import SYNONYMS, meant_by, squash

S = TypeVar("S", bound=Settings)

_WHERE_KEYS_ARE = "Run: coterie train PRESET --dry-run  to see every key with its value."
_MOST_BYTES = 1 << 20  # of a settings file
_TOKENIZER, _ORIGIN = "tokenizer.json", "origin.json"  # of a run made from elsewhere


class Word(NamedTuple):
    """One `key=value` of a command line; what its text means is decided with the field known."""

    key: Key
    text: str
    word: str


@dataclass(frozen=True)
class Layer:
    """One source of settings: a name for the reader, a nested mapping, words laid over it.

    In what comes from a file, numbers, truth values and nulls are `Scalar`s: a text field takes
    them as they were written.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[Word] = ()


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
    return Layer(str(path), _read_mapping(path, written=True))


def read_settings_file(path: Path | str) -> dict[str, Any]:
    """Read a YAML file of settings as plain data.

    Raises:
        SettingsError: there is no such file, or it holds no mapping.
    """
    return _read_mapping(path, written=False)


def _read_mapping(path: Path | str, *, written: bool) -> dict[str, Any]:
    path = Path(expand_home(str(path)))
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise SettingsError(f"{path} is larger than any settings file: over 1 MiB.")
        values = read_yaml(path, written=written)
    except FileNotFoundError as error:
        raise SettingsError(f"There is no settings file {path}.") from error
    except OSError as error:  # a name that is too long
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    if values is None or plain(values) is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path} holds {shown(plain(values))}, but settings are key: value.",
            hint="Write for example  train: {steps: 200}",
        )
    if is_written_by_a_run(path.absolute()):
        values = migrated_settings(values)
    _name_own_tokenizer(values, path.absolute())
    return values


def _name_own_tokenizer(values: dict[str, Any], path: Path) -> None:
    """Name the tokenizer beside settings that belong to it, wherever the run was moved.

    A run that holds its tokenizer means that one; the one in a checkpoint is taken where the file
    that was named is gone.
    """
    tokenizer = values.get("tokenizer")
    named = tokenizer.get("path") if isinstance(tokenizer, dict) else None
    if not isinstance(tokenizer, dict) or not isinstance(named, str):
        return
    if Path(named).name != _TOKENIZER:
        return
    folder = path.parent
    run = folder.parents[1] if folder.parent.name == "checkpoints" else folder
    if (run / _ORIGIN).is_file() and (run / _TOKENIZER).is_file():
        tokenizer["path"] = str(run / _TOKENIZER)
        return
    gone = named == _TOKENIZER or not Path(expand_home(named)).exists()
    if gone and (folder / _TOKENIZER).is_file() and (folder / "manifest.json").is_file():
        tokenizer["path"] = str(folder / _TOKENIZER)


def overrides_layer(words: Iterable[str]) -> Layer:
    """Read `key.path=value` words as a layer; the last word for a key wins.

    Raises:
        SettingsError: a word has no `=` or an empty key.
    """
    found = []
    for word in words:
        name, equals, text = word.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            raise SettingsError(
                f"“{shown(word)}” is not key=value.", hint="Write for example train.steps=200"
            )
        if len(key) > MAX_DEPTH:
            raise SettingsError(f"“{shown(word)}” is nested too deeply.")
        found.append(Word(key, text, word))
    return Layer("command line", words=found)


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
        hint: what the reader of an error is told to run.

    When a later layer chooses another `kind` for a part, values that the part inherited from
    earlier layers and that the new kind does not know are dropped; those it knows are kept.

    Raises:
        SettingsError: anything is wrong; every problem is listed, with its origin and the nearest
            valid name.
    """
    tree = merge_layers(cls, layers)
    try:
        settings = cls.model_validate(tree.values())
    except ValidationError as error:
        raise _explain(tree, error.errors(), hint) from error
    if tree.problems:
        raise _explain(tree, [], hint)
    return Resolved(settings, tree.provenance())


def merge_layers(cls: type[Settings], layers: Sequence[Layer]) -> Tree:
    """Return layers laid over one another, not validated yet."""
    kinds: dict[Key, Any] = {}
    for layer in layers:
        chosen_kinds(layer.values, (), kinds)
        for key, text, _ in layer.words:
            value = text if key[-1] == "kind" else parse_or_text(text)
            chosen_kinds(_nested(key, value), (), kinds)
    tree = Tree(Schema(cls, kinds))
    for depth, layer in enumerate(layers):
        tree.lay((), layer.values, Mark(depth, layer.name))
        for order, each in enumerate(layer.words):
            _lay_word(tree, each, Mark(depth, f"{layer.name}: {each.word}", order))
    return tree


def _nested(key: Key, value: Any) -> Any:
    for part in reversed(key):
        value = {part: value}
    return value


def _lay_word(tree: Tree, word: Word, mark: Mark) -> None:
    place = tree.schema.at(word.key)
    name = ".".join(word.key)
    try:
        value = read_word(word.text, None if place is None else place.shape, name)
    except SettingsError as error:
        tree.problems.append((word.key, error.message, mark.origin))
    else:
        tree.lay(word.key, value, mark)


def _explain(tree: Tree, errors: Iterable[Any], hint: str) -> SettingsError:
    """Turn pydantic's report into lines for the reader."""
    keys = {key for key, _, _ in tree.problems}
    lines = [_line(key, text, [origin]) for key, text, origin in tree.problems]
    for problem in errors:
        key = _key(tree, problem)
        if key not in keys:
            keys.add(key)
            lines.append(_line(key, _describe(tree, key, problem), tree.origins(key)))
    count = f"{len(lines)} problem" + ("s" if len(lines) > 1 else "")
    return SettingsError(f"The settings have {count}:\n" + "\n".join(lines), hint=hint)


def _key(tree: Tree, problem: Mapping[str, Any]) -> Key:
    """Return the key that a problem is about; pydantic adds the alternatives that it tried."""
    key = tuple(str(part) for part in problem["loc"])
    for length in range(len(key)):
        place = tree.schema.at(key[:length])
        tries = place is not None and (place.shape.text or place.shape.numbers)
        if tries and tree.schema.at(key[: length + 1]) is None:
            return key[:length]
    return key


def _line(key: Key, text: str, origins: Sequence[str]) -> str:
    name = ".".join(part or "“”" for part in key) or "the settings as a whole"
    told = f"  [{'; '.join(shown(each, 200) for each in origins[:3])}]" if origins else ""
    return f"  {printable(name, '')}: {printable(text)}{told}"


def _describe(tree: Tree, key: Key, problem: Mapping[str, Any]) -> str:
    """Return what is wrong with the value at a key, and the nearest valid choice."""
    given = problem.get("input")
    if problem["type"] == "missing":
        return "missing, and it has no default"
    if problem["type"] == "extra_forbidden":
        now = tree.schema.renamed(key)
        if now is not None:
            return f"is now {'.'.join((*key[:-1], now))}"
        return f"unknown key; {nearest(key[-1], tree.schema.names(key[:-1]), _keys(tree, key[-1]))}"
    place = tree.schema.at(key)
    if problem["type"] == "literal_error" and place is not None and place.shape.choices:
        return f"got {shown(given)}; {nearest(str(given), place.shape.choices)}"
    if given is None and problem["type"].startswith("string"):
        return "got null; a text that reads so needs quotes"
    cause = problem.get("ctx", {}).get("error")
    message = cause.message if isinstance(cause, UserError) else problem["msg"]
    message = message.removeprefix("Value error, ")
    text = message[:1].lower() + message[1:]
    if given is None or isinstance(given, str | int | float | bool):
        text += f", got {shown(given)}"
    return text


def _keys(tree: Tree, name: str) -> list[str]:
    """Return every key of the settings; those of other kinds where only they have such a name."""
    keys = [".".join(path) for path in tree.schema.paths(path for path, _ in tree.nodes())]
    if meant_by(name, keys):
        return keys
    fields = tree.schema.names(())
    others = (key for key in SYNONYMS.get(squash(name), ()) if key.partition(".")[0] in fields)
    return [*keys, *others]


def dump_yaml(settings: Settings) -> str:
    """Return settings as YAML text that reads back to equal settings."""
    return to_yaml(settings.model_dump(mode="json"))
