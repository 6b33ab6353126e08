"""The JSON Schema of a settings file, with which editors complete and check presets in YAML.

A file names only what it changes, so nothing is required; a preset may add `scales` and
`departures`.
"""

from typing import Any

from coterie.train.settings import RunSettings

# Parts that a plain value stands for, which their schema cannot know.
_IN_SHORT = {"dropout": "number", "query_key_norm": "boolean"}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def editor_schema() -> dict[str, Any]:
    """Return the schema of presets, overlays and every run's config.yaml."""
    schema = _relaxed(RunSettings.model_json_schema())
    definitions = schema.pop("$defs", {})
    run = {key: schema[key] for key in ("properties", "additionalProperties")}
    definitions["Run"] = {"type": "object", **run}
    return {
        "$schema": _DRAFT,
        "title": "Coterie: settings of a run",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **run["properties"],
            "scales": {
                "type": "object",
                "description": "named changes, such as `tiny`, that scale=NAME lays over the rest",
                "additionalProperties": {"$ref": "#/$defs/Run"},
            },
            "extends": {"type": "string", "description": "the preset that it is laid over"},
            "departures": {
                "type": "array",
                "items": {"type": "string"},
                "description": "where a preset is not what the system of its name was",
            },
        },
        "$defs": definitions,
    }


def _relaxed(node: Any) -> Any:
    """Return a schema without what a partial file breaks, and with what the reader admits."""
    if isinstance(node, list):
        return [_relaxed(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: {name: _shortened(name, _relaxed(each)) for name, each in value.items()}
        if key in ("properties", "$defs")
        else _relaxed(value)
        for key, value in node.items()
        if key not in ("title", "default") and (key != "required" or value == ["kind"])
    }
    if "default" in node:
        kept["default"] = node["default"]
    if kept.get("type") == "array" and kept.get("items", {}).get("type") == "string":
        told = {key: kept.pop(key) for key in ("description", "default") if key in kept}
        return {"anyOf": [{"type": "string"}, kept], **told}  # one text stands for a list of one
    return kept


def _shortened(name: str, schema: Any) -> Any:
    """Return a property's schema with the plain value that it may be."""
    if name in _IN_SHORT and "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": _IN_SHORT[name]}]}
    return schema
