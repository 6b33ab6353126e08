"""What metre and rhyme charge for, as learned from sonnets (`scripts/build_verse_costs.py`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from coterie.language.verse.dictionary import TABLES


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads((TABLES / "costs.json").read_text("utf-8"))


@functools.cache
def learned() -> Mapping[str, float]:
    """Return what is charged for, in nats, and the "limit" of a metrical line of ten syllables."""
    return {key: value for key, value in _table().items() if key != "rhyme"}


@functools.cache
def rhyme_evidence() -> tuple[tuple[float, float], ...]:
    """Return upper edges of distances between endings, with the evidence for a rhyme in nats."""
    return tuple((edge, weight) for edge, weight in _table()["rhyme"])
