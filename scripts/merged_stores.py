"""Merged stores and what can happen to them, for `corrupt_stores.py`."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path
from typing import Any

from coterie.data.merged import merge
from coterie.data.mix import Equal, Proportional, Temperature, Weighted


def merged_stores(folder: Path, stores: list[Path]) -> list[Path]:
    """Merge two stores of each tokenizer, in one way or another; the copies stand alone."""
    mixes = [Equal(), Proportional(epochs_at_most=2), Weighted(weights=(1.7, 0.3)), Temperature()]
    merged = []
    groups = itertools.groupby(stores, lambda store: store.name.rpartition("-")[0])
    for number, (name, group) in enumerate(groups):
        merged.append(folder / f"merged-{name}")
        merge([*group][:2], merged[-1], mixes[number % len(mixes)], copy=True)
    return merged


def parts_of(store: Path) -> list[Path]:
    """Return the stores inside a merged one."""
    return [path.parent for path in sorted(store.glob("*/manifest.json"))]


def move_parts(rng: random.Random, store: Path, other: Path) -> str:
    """Remove, exchange or double the stores inside a merged one."""
    first, second = rng.sample(parts_of(store), 2)
    how = rng.choice(["removed", "exchanged", "doubled"])
    if how == "removed":
        shutil.rmtree(first)
    elif how == "doubled":
        shutil.copytree(first, store / "again")
    else:
        first.rename(store / "kept")
        second.rename(first)
        (store / "kept").rename(second)
    return f"{first.name} {how}"


def pinned(content: dict[str, Any]) -> dict[str, Any]:
    """Return what cannot be chosen freely: all but the names of the stores and their ratio."""
    kept = {name: value for name, value in content.items() if name != "mix"}
    kept["parts"] = [
        {**part, "name": "", "path": os.path.normpath(part["path"])} for part in content["parts"]
    ]
    return kept
