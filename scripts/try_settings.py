"""Try the reading of settings with everything a person, or a monkey, may write.

    python scripts/try_settings.py unions              # every kind, field, order, preset
    python scripts/try_settings.py words --rounds 500  # random words
    python scripts/try_settings.py files --rounds 200  # random overlay files

`unions` holds that what is written beside a `kind` is what comes out, in every order, and that its
origin is told. `words` and `files` hold that whatever is written is taken or refused by a user
error that names a key; `--dry-run` goes on to plan each run that was taken. The seed is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from coterie.api.planning import make_plan
from coterie.foundation.errors import UserError
from coterie.foundation.layers import (
    Layer,
    Resolved,
    file_layer,
    load_settings,
    merge_layers,
    overrides_layer,
)
from coterie.foundation.schema import Key, shape_of
from coterie.foundation.settings import Settings, kind_of
from coterie.presets import preset_layers as read_preset
from coterie.presets import preset_names
from coterie.train.settings import RunSettings

preset_layers = cache(read_preset)
SECONDS_AT_MOST = 30.0  # that one reading may take


class Case(NamedTuple):
    """A field of a kind, written beside that kind over a preset."""

    preset: str
    part: Key
    kind: str
    field: str
    value: Any


def cases(presets: list[str] | None = None) -> Iterator[Case]:
    """Yield every field of every kind of every union of every preset, with two values each."""
    for preset in presets or preset_names():
        tree = merge_layers(RunSettings, preset_layers(preset))
        for part in tree.schema.paths(key for key, _ in tree.nodes()):
            place = tree.schema.at(part)
            if place is None or place.shape.union is None:
                continue
            for member in place.shape.union.members.values():
                for field in member.model_fields:
                    if field != "kind":
                        for value in values_of(member, field):
                            yield Case(preset, part, kind_of(member), field, value)


def values_of(member: type[Settings], field: str) -> list[Any]:
    """Return the default of a field and another value, where one comes to mind."""
    info = member.model_fields[field]
    shape = shape_of(info.annotation, tuple(info.metadata))
    default = info.get_default(call_default_factory=True, validated_data={})
    tried: list[Any] = [True, False] if bool in shape.numbers else []
    tried += [3, 300] if int in shape.numbers else [0.3, 0.7] if float in shape.numbers else []
    tried += list(shape.choices) + (["other"] if shape.text else [])
    known = (bool, int, float, str)
    found = [default] if isinstance(default, known) and type(default) in known else []
    return found + [value for value in tried if value != default][:1]


def orders(case: Case) -> Iterator[Layer]:
    """Yield the ways to write a case, as layers."""
    beside = {"kind": case.kind, case.field: case.value}
    reverse = dict(reversed(beside.items()))
    path, value = ".".join(case.part), json.dumps(case.value)
    if isinstance(case.value, str):
        value = case.value
    words = [f"{path}.kind={case.kind}", f"{path}.{case.field}={value}"]
    short = [f"{path}={case.kind}", words[1]]
    for pair in (words, short):
        yield overrides_layer(pair)
        yield overrides_layer(pair[::-1])
    for mapping in (beside, reverse):
        yield overrides_layer([f"{path}={json.dumps(mapping)}"])
        nested: Any = mapping
        for name in reversed(case.part):
            nested = {name: nested}
        yield Layer("a mapping", nested)


def check_case(case: Case) -> str | None:
    """Return what is wrong with the reading of a case, `None` if nothing is."""
    for layer in orders(case):
        tree = merge_layers(RunSettings, [*preset_layers(case.preset), layer])
        found: Any = tree.values()
        for name in case.part:
            found = found[int(name)] if isinstance(found, list) else found[name]
        origin = tree.provenance().get((*case.part, case.field), "default")
        if tree.problems or found.get("kind") != case.kind or found.get(case.field) != case.value:
            return f"{case}: {layer} gives {found} {tree.problems}"
        if not origin.startswith(("command line", "a mapping")):
            return f"{case}: {layer} is said to come from {origin}"
    return None


_PIECES = [
    "kind", "null", "~", "true", "yes", "1e3", "1e999", "-1", "0", "0.5", ".inf", ".nan", "0x1",
    "017", "1_000", "12:30", "2020-99-99", "18446744073709551616", "1073741824", "9" * 5000, "-0",
    "{}", "[]", "{kind: {}}", "{kind: [a]}", "{kind: rms}", "{kind: ':'}", "{kind: 'os:path'}",
    "{a: 1}", "{1: 2}", "{? [a] : b}", "&a {b: *a}", "*a", "!!timestamp x", "!!set {a}", "!x y",
    "[" * 300, "{a: " * 150, "- a", "a: b", "# x", "|", ">", "%", "@", "`", "\"", "'", ",", "<<",
    "=", "[INST]", "\x00", "\x1b[2J", "\u0085", "\u2028", "\ud800", "😀", "[/x]", "../x",
    "", " ", "\n", "\t", "a" * 3000, "nan", "inf", "1e-400", "{kind: moe}", "[{count: 2}]", "[a]",
    "/dev/zero",
]  # fmt: skip


def random_key(chance: random.Random, paths: list[Key]) -> str:
    """Return the name of a key: real, spoilt or invented."""
    key = ".".join(chance.choice(paths))
    spoil = chance.random()
    if spoil < 0.6:
        return key
    if spoil < 0.75:
        at = chance.randrange(len(key))
        return key[:at] + chance.choice("abz_-.9") + key[at + chance.randrange(2) :]
    if spoil < 0.9:
        return f"{key}.{chance.choice(['kind', '0', '7', 'x', 'a-b', 'é'])}"
    return "".join(chance.choices("abkx_.-09", k=chance.randint(1, 12)))


def random_value(chance: random.Random) -> str:
    """Return what may stand after a `=`."""
    pieces = chance.choices(_PIECES, k=1 if chance.random() < 0.8 else 2)
    if chance.random() < 0.15:
        pieces.append("".join(chance.choices("{}[]:,#&*!|>'\"%@`ab01\n \t-", k=9)))
    return "".join(pieces)


def random_file(chance: random.Random, paths: list[Key]) -> bytes:
    """Return the content of an overlay file: nested keys with odd values, at times spoilt."""
    lines = []
    for _ in range(chance.randint(1, 3)):
        key = random_key(chance, paths).split(".")
        for depth, part in enumerate(key):
            end = f" {random_value(chance)}" if depth == len(key) - 1 else ""
            lines.append("  " * depth + part + ":" + end)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        at = chance.randrange(len(content) + 1)
        content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    return content


def attempt(layers: list[Layer], named: str | None) -> tuple[Resolved[RunSettings] | None, str]:
    """Read layers and return what came of it: settings, or the words of a user error.

    Raises:
        AssertionError: it took too long, or the error names no key.
    """
    started = time.process_time()
    try:
        resolved, said = load_settings(RunSettings, layers), ""
    except UserError as error:
        resolved, said = None, str(error)
    assert time.process_time() - started < SECONDS_AT_MOST, f"{named}: slow"
    assert resolved is not None or named is None or _names(said, named), f"{named}: {said}"
    return resolved, said


def _names(said: str, key: str) -> bool:
    return any(part in said for part in (key, key.rpartition(".")[0] or key))


def all_paths(preset: str) -> list[Key]:
    """Return every key of a preset's settings."""
    tree = merge_layers(RunSettings, preset_layers(preset))
    return list(tree.schema.paths(key for key, _ in tree.nodes()))


def try_words(rounds: int, seed: int, plan: bool = False) -> dict[str, int]:
    """Read random words over random presets; return how many were taken and refused."""
    return _try(rounds, seed, plan, _word_layer)


def try_files(rounds: int, seed: int, plan: bool = False) -> dict[str, int]:
    """Read random overlay files over random presets; return how many were taken and refused."""
    return _try(rounds, seed, plan, _file_layer)


def _word_layer(chance: random.Random, paths: list[Key]) -> tuple[Layer, str | None]:
    key = random_key(chance, paths)
    return overrides_layer([f"{key}={random_value(chance)}"]), key


def _file_layer(chance: random.Random, paths: list[Key]) -> tuple[Layer, str | None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "over.yaml"
        path.write_bytes(random_file(chance, paths))
        return file_layer(path), None


def _try(rounds: int, seed: int, plan: bool, make: Any) -> dict[str, int]:
    chance, counts = random.Random(seed), {"taken": 0, "refused": 0}
    paths = {name: all_paths(name) for name in preset_names()}
    try:
        for _ in range(rounds):
            preset = chance.choice(preset_names())
            try:
                layer, key = make(chance, paths[preset])
            except UserError:
                counts["refused"] += 1
                continue
            resolved, _ = attempt([*preset_layers(preset), layer], key)
            counts["refused" if resolved is None else "taken"] += 1
            if plan and resolved is not None:
                _plan(resolved, layer)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return counts


def _plan(resolved: Resolved[RunSettings], layer: Layer) -> None:
    """Plan a run as `--dry-run` does; only user errors may come of it, and soon."""
    started = time.process_time()
    said = ""
    try:
        make_plan(resolved.settings)
    except UserError as error:
        said = str(error)
    seconds = time.process_time() - started
    assert seconds < 4 * SECONDS_AT_MOST, f"{layer}: {seconds:.0f} s {said}"


def try_unions(seed: int, share: float = 1.0) -> tuple[int, list[str]]:
    """Check a share of all cases; return how many were looked at and what is wrong."""
    chance = random.Random(seed)
    count, wrong = 0, []
    for case in cases():
        if chance.random() >= share:
            continue
        count += 1
        problem = check_case(case)
        wrong += [problem] if problem else []
    return count, wrong


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["unions", "words", "files"])
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of unions")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--dry-run", action="store_true", help="plan each run that was taken")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    print("seed", seed)
    if arguments.what == "unions":
        count, wrong = try_unions(seed, arguments.share)
        print(*wrong[:20], f"{count} cases, {len(wrong)} wrong", sep="\n")
        sys.exit(bool(wrong))
    run = try_words if arguments.what == "words" else try_files
    print(run(arguments.rounds, seed, arguments.dry_run))


if __name__ == "__main__":
    main()
