"""The block `datasets`: several data sets and how they are merged, as other systems write it.

```yaml
datasets:
  paths: [stores/verse, stores/prose]     # or a list of {path, weight, name}
  weights: [0.7, 0.3]
  merge_strategy: weighted
```
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.foundation.errors import nearest

_PATHS = ("paths", "sources", "stores", "items")
_STRATEGY = ("merge_strategy", "strategy")
_KNOWN = ("paths", "weights", "merge_strategy", "temperature", "epochs_at_most")
_STRATEGIES = ("equal", "proportional", "weighted", "temperature")
_ENTRY = ("path", "weight", "name")


def with_datasets(values: Any) -> Any:
    """Return a run's settings with what a block `datasets` says under `data`, which goes first.

    Raises:
        ValueError: the block says something that is not understood.
    """
    if not isinstance(values, Mapping) or values.get("datasets") is None:
        return values
    rest = {name: each for name, each in values.items() if name != "datasets"}
    block = _block(values["datasets"])
    data = rest.get("data") or {}
    if not isinstance(data, Mapping):
        return rest
    mix = data.get("mix")
    mix = {**block["mix"], **mix} if isinstance(mix, Mapping) else mix or block["mix"]
    return rest | {"data": {**data, "sources": data.get("sources") or block["sources"], "mix": mix}}


def _block(given: Any) -> dict[str, Any]:
    """Return `sources` and `mix` of a block."""
    block = given if isinstance(given, Mapping) else {"paths": given}
    paths = next((block[name] for name in _PATHS if name in block), None)
    strategy = next((block[name] for name in _STRATEGY if name in block), None)
    for name in block:
        if name not in (*_KNOWN, *_PATHS, *_STRATEGY):
            raise ValueError(f"datasets.{name} is unknown; {nearest(str(name), _KNOWN)}")
    if isinstance(paths, Mapping):
        paths = [{"name": name, "path": path} for name, path in paths.items()]
    if not isinstance(paths, list | tuple) or not paths:
        raise ValueError("datasets needs paths: a list of texts or stores")
    entries = [each if isinstance(each, Mapping) else {"path": each} for each in paths]
    for entry in entries:
        if not isinstance(entry.get("path"), str) or set(entry) - set(_ENTRY):
            raise ValueError(f"an entry of datasets has {', '.join(_ENTRY)}, not {dict(entry)}")
    weights = block.get("weights")
    if weights is None and any("weight" in entry for entry in entries):
        weights = [entry.get("weight", 1.0) for entry in entries]
    if strategy is None:
        strategy = "proportional" if weights is None else "weighted"
    if strategy not in _STRATEGIES:
        raise ValueError(f"datasets.merge_strategy: {nearest(str(strategy), _STRATEGIES)}")
    mix: dict[str, Any] = {"kind": strategy}
    if strategy == "weighted":
        if weights is None:
            raise ValueError("datasets.merge_strategy: weighted needs datasets.weights")
        mix["weights"] = weights
    mix |= {name: block[name] for name in ("temperature", "epochs_at_most") if name in block}
    return {"sources": _named(entries), "mix": mix}


def _named(entries: list[Any]) -> dict[str, dict[str, str]]:
    sources: dict[str, dict[str, str]] = {}
    for entry in entries:
        stem = str(entry.get("name") or Path(entry["path"]).stem or entry["path"])
        number, name = 1, stem
        while name in sources:
            number += 1
            name = f"{stem}-{number}"
        sources[name] = {"source": entry["path"]}
    return sources
