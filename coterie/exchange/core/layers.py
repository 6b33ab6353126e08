"""Settings of layers as plain values, from which families build what a file describes."""

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.model.mlp import GatedMLP

Values = dict[str, Any]


def dense(hidden: int, *, bias: bool = False) -> Values:
    """Return the settings of a dense SwiGLU layer."""
    return {"kind": "dense", "mlp": _swiglu(hidden, bias)}


def routed(
    experts: int,
    hidden: int,
    experts_per_token: int,
    *,
    router: Values,
    balance: Any = "none",
    shared: int = 0,
    shared_gate: bool = False,
    shared_bias: bool = False,
) -> Values:
    """Return the settings of a layer of SwiGLU experts of one kind.

    Args:
        shared: joint width of the shared experts; 0: there are none.
    """
    values: Values = {
        "kind": "moe",
        "experts": [{"count": experts, "mlp": _swiglu(hidden)}],
        "experts_per_token": experts_per_token,
        "router": router,
        "balance": balance,
    }
    if not shared:
        return values
    return values | {
        "shared_experts": 1,
        "shared_gate": shared_gate,
        "shared_mlp": _swiglu(shared, shared_bias),
    }


def block_pattern(labels: Sequence[str], blocks: Mapping[str, Values]) -> Values:
    """Return the settings that give every layer the block of its label."""
    last = labels[-1]
    opening = len(labels)
    while opening and labels[opening - 1] == last:
        opening -= 1
    if opening == 0:
        return dict(blocks[last])
    used = {label: blocks[label] for label in dict.fromkeys(labels)}
    return {"blocks": used, "opening": tuple(labels[:opening]), "pattern": (last,)}


def _swiglu(hidden: int, bias: bool = False) -> Values:
    return GatedMLP(width=hidden, bias=bias).model_dump()
