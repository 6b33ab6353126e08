"""What the text after `key=` means: decided by what may stand at the key, never before.

A text field takes the text as it stands. Where several texts may stand, a list of them is told
from one text by its form: a JSON list of strings, or `[a, b]` with two items or more, is a list;
everything else, `[INST]` included, is one text. Where a number or a truth value belongs, the text
is that and nothing more. Where a part or a list belongs, it is YAML.
"""

import contextlib
import json
import re
from typing import Any

import yaml

from coterie.foundation.errors import SettingsError
from coterie.foundation.records import Scalar, parse_yaml, read_scalar
from coterie.foundation.schema import Shape

_BETWEEN_ITEMS = re.compile(r"\s*,?\s*")


def read_word(text: str, shape: Shape | None, name: str) -> Any:
    """Return what a text means where something of a shape may stand.

    Args:
        text: what stands after the `=`.
        shape: what may stand there; None: nothing is known of it.

    Raises:
        SettingsError: YAML was needed and the text is none.
    """
    if shape is None:
        return parse_or_text(text)
    if shape.is_text or shape.is_texts:
        if shape.optional and text == "null":
            return None
        listed = text_list(text) if shape.is_texts else None
        return text if listed is None else listed
    if not shape.structured:
        return read_scalar(text)
    return parse_yaml(text, f"the value of {name}", written=True)


def parse_or_text(text: str) -> Any:
    """Return a text as YAML means it, or the text itself where it is none."""
    try:
        return parse_yaml(text, "", written=True)
    except SettingsError:
        return text


def text_list(text: str) -> list[str] | None:
    """Return the items of a list of texts, `None` when the text is not certainly one.

    A single item needs quotes (`["a"]`), so that `[INST]` stays a text.
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        items = json.loads(text)
        if all(isinstance(item, str) for item in items):
            return items
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(text):
        return None
    quoted = True
    end = 1
    for item in node.value:
        start, between = item.start_mark.index, text[end : item.start_mark.index]
        if not isinstance(item, yaml.ScalarNode) or not _BETWEEN_ITEMS.fullmatch(between):
            return None
        plain, end = item.style is None, item.end_mark.index
        if plain and item.value != text[start:end].strip():
            return None  # a comment, an anchor, a tag or folded lines: no list was meant
        quoted = quoted and not plain
    if not _BETWEEN_ITEMS.fullmatch(text[end:-1]) or not (quoted or len(node.value) > 1):
        return None
    return [item.value for item in node.value]


def as_texts(value: Any, shape: Shape) -> Any:
    """Return a leaf as the texts that a field wants: a scalar as it was written, one as a list."""
    if isinstance(value, Scalar):
        if value.value is None and value.text not in shape.choices:
            return None
        value = value.text
    return [value] if shape.is_texts and not shape.text and isinstance(value, str) else value
