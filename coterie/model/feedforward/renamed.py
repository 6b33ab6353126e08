"""What earlier versions called the settings and tensors of feed-forward layers.

Plain data for whoever reads runs of those versions; on the command line and in new files the old
names are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = {
    "body": "mlp",  # of dense layers and of packs of experts
    "shared_body": "shared_mlp",
    "capacity": "capacity_factor",
    "compute": "kernel",
    "answer": "output",  # of null experts
}
KINDS: Mapping[str, Mapping[str, str]] = {
    "swiglu": {"kind": "gated", "activation": "silu"},
    "geglu": {"kind": "gated", "activation": "gelu"},
    "gelu": {"kind": "mlp", "activation": "gelu"},
    "squared_relu": {"kind": "mlp", "activation": "relu_squared"},
}
"""Kinds of an MLP, each with the values that stand for it now."""
TENSORS = {".feedforward.body.": ".feedforward.mlp."}
"""Parts of the names of tensors, in models and in optimizer states."""


def migrated(feedforward: Any) -> Any:
    """Return a feed-forward layer's settings, read from an earlier version's run, as of now."""
    if isinstance(feedforward, list):
        return [migrated(each) for each in feedforward]
    if not isinstance(feedforward, dict):
        return feedforward
    values: dict[str, Any] = {
        KEYS.get(str(name), str(name)): migrated(value) for name, value in feedforward.items()
    }
    if values.get("kind") in KINDS:
        values |= KINDS[values["kind"]]
        if values.pop("approximate", "none") == "tanh":
            values["activation"] = "gelu_tanh"
    elif values.get("activation") == "squared_relu":
        values["activation"] = "relu_squared"
    return values
