"""The schema for editors admits every preset and marks what the reader refuses."""

from __future__ import annotations

import operator
import re
from typing import Any

import pytest

from coterie.api.editor import editor_schema
from coterie.foundation.records import parse_yaml
from coterie.presets import preset_names, preset_text

SCHEMA = editor_schema()
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
         "number": (int, float), "null": type(None)}  # fmt: skip
BOUNDS = {"minimum": operator.ge, "maximum": operator.le, "exclusiveMinimum": operator.gt,
          "exclusiveMaximum": operator.lt}  # fmt: skip


def problems(value: Any, schema: Any, where: str = "") -> list[str]:
    """Return what of a value a JSON schema does not admit; knows the words that ours uses."""
    if schema is True or schema == {}:
        return []
    found = []
    if "$ref" in schema:
        found += problems(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    for each in schema.get("allOf", []):
        found += problems(value, each, where)
    if "anyOf" in schema and all(problems(value, each, where) for each in schema["anyOf"]):
        found.append(f"{where}: none of the choices")
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: not {schema['const']}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: not in {schema['enum']}")
    if "type" in schema:
        kind = TYPES[schema["type"]]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return [*found, f"{where}: no {schema['type']}"]
    if isinstance(value, int | float):
        found += [f"{where}: {word}" for word, holds in BOUNDS.items()
                  if word in schema and not holds(value, schema[word])]  # fmt: skip
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{where}: pattern")
    if isinstance(value, list):
        for each in value:
            found += problems(each, schema.get("items", True), f"{where}[]")
    if isinstance(value, dict):
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
            place = f"{where}.{name}"
            found += [f"{place}: unknown"] if inner is False else problems(each, inner, place)
    return found


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_admitted(name):
    assert problems(parse_yaml(preset_text(name), name), SCHEMA) == []


@pytest.mark.parametrize(
    "values",
    [
        {"train": {"stepz": 1}},
        {"train": {"steps": 0}},
        {"train": {"optimizer": {"kind": "muonn"}}},
        {"train": {"optimizer": {"kind": "muon", "beta9": 1}}},
        {"model": {"norm": "rmz"}},
        {"scales": {"tiny": {"sed": 1}}},
    ],
)
def test_what_the_reader_refuses_is_marked(values):
    assert problems(values, SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"norm": "rms"}},
        {"model": {"norm": {"kind": "my_lab.norms:Centred", "spread": 2}}},
        {"train": {"prompts": "one"}},
        {"train": {"prompts": ["one", "two"]}},
    ],
)
def test_what_the_reader_admits_is_admitted(values):
    assert problems(values, SCHEMA) == []


def test_choices_carry_their_descriptions():
    assert SCHEMA["$defs"]["TrainSettings"]["properties"]["steps"]["description"]
    assert "required" not in SCHEMA["$defs"]["TrainSettings"]
