"""The past of a batch in tensors whose shapes do not grow with the text."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from coterie.generate.cache.stack import CacheStack
from coterie.generate.passes.interface import Call
from coterie.model.geometry import KeyLayout, UnevenRows


def refusal(call: Call) -> str | None:
    """Return why a call cannot be served by a step of static shape; None: it can."""
    if call.cache is None or call.tokens.shape[1] != 1 or call.cache.rows == 0:
        return "only single tokens after a prompt have a static shape"
    if call.watch is not None:
        return "hidden states are asked for"
    if call.lengths is not None and min(call.lengths) < 1:
        return "a row has nothing to read"
    if call.cache.state or None in call.cache.in_place:
        return "this cache, or an embedding that carries a state, has no static shape"
    return None


def memory(cache: CacheStack, extra: int) -> list[tuple[Tensor, Tensor]]:
    """Return the keys and values of every layer, with room for `extra` more positions."""
    return [layer.memory(extra) for layer in cache.in_place if layer is not None]


class Slots:
    """One layer's whole memory; a new position is written where it belongs."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def append(
        self, keys: Tensor, values: Tensor, rows: UnevenRows | None = None
    ) -> tuple[Tensor, Tensor, KeyLayout]:
        """Write one position of each row and return all slots; empty ones stand too late."""
        assert rows is not None
        row = torch.arange(keys.shape[0], device=keys.device)
        at = rows.positions[:, 0]
        self.keys[row, :, at] = keys[:, :, 0]
        self.values[row, :, at] = values[:, :, 0]
        slots = torch.arange(self.keys.shape[2], device=keys.device)
        return self.keys, self.values, KeyLayout(positions=slots.expand(keys.shape[0], -1))


class StaticPast:
    """The past of a batch for one step: a stack whose layers are whole memories.

    Args:
        rows: where the new tokens stand.
        recent: the tokens before them; None: nobody asks.
    """

    def __init__(
        self,
        layers: Sequence[tuple[Tensor, Tensor]],
        rows: UnevenRows,
        recent: Int[Tensor, "B n"] | None = None,
    ) -> None:
        self._rows, self._recent = rows, recent
        self.length = max(rows.past)
        self.state: dict[str, Any] = {}
        self.layers = tuple(Slots(*each) for each in layers)

    def place(
        self, tokens: Tensor, lengths: tuple[int, ...] | None, documents: Tensor | None
    ) -> UnevenRows:
        """Return where the new tokens will stand, row by row."""
        return self._rows

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read."""
        return None if self._recent is None else self._recent[:, -count:]

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None = None) -> None:
        """Leave it to the pass to make the tokens part of the past."""
