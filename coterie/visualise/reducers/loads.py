"""Load per expert over time, layer by layer."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coterie.train.events import LayerLoad, LoadMeasured
from coterie.visualise.reducers.base import Reducer

BINS = 160  # most columns that a heat map keeps
MEASUREMENTS = 1024  # most measurements that are kept of a layer


@dataclass(frozen=True)
class LayerHistory:
    """Load of one layer's experts over N measurements.

    Args:
        steps: [N] the step at which each measurement ended.
        load: [N, E] tokens per expert.
        dropped: [N] choices that found no room.
        bias: [N, E] selection bias, or None where the router has none.
        entropy: [N] of the router's shares, nats per token, NaN where it was not measured; None
            where it never was.
    """

    layer: int
    steps: np.ndarray
    load: np.ndarray
    dropped: np.ndarray
    bias: np.ndarray | None
    entropy: np.ndarray | None = None

    @cached_property
    def share(self) -> np.ndarray:
        """[N, E] load over an even share: 1 is balanced, 0 a dead expert."""
        total = self.load.sum(axis=1, keepdims=True)
        return self.load * self.load.shape[1] / np.maximum(total, 1)

    @cached_property
    def imbalance(self) -> np.ndarray:
        """[N] the busiest expert's load over the mean load."""
        return self.share.max(axis=1)

    @cached_property
    def dead(self) -> np.ndarray:
        """[N] how many experts received no token at all."""
        return (self.load == 0).sum(axis=1)

    @cached_property
    def indecision(self) -> np.ndarray:
        """[N] the router's entropy over that of an even choice: 0 certain, 1 undecided."""
        entropy = np.full(len(self.steps), np.nan) if self.entropy is None else self.entropy
        return entropy / max(np.log(self.load.shape[1]), 1e-9)

    @cached_property
    def drift(self) -> np.ndarray:
        """[N] how far the selection bias that moved most did, since the measurement before."""
        if self.bias is None:
            return np.full(len(self.steps), np.nan)
        moved = np.abs(np.diff(self.bias, axis=0)).max(axis=1)
        return np.concatenate([[np.nan], moved])

    def binned(self, limit: int = BINS) -> "LayerHistory":
        """Return the same history with neighbouring measurements summed until few enough remain."""
        count = len(self.steps)
        if count <= limit:
            return self
        edges = np.linspace(0, count, limit + 1).astype(int)
        starts = edges[:-1]
        bias = None if self.bias is None else self.bias[edges[1:] - 1]
        return LayerHistory(
            layer=self.layer,
            steps=self.steps[edges[1:] - 1],
            load=np.add.reduceat(self.load, starts, axis=0),
            dropped=np.add.reduceat(self.dropped, starts),
            bias=bias,
        )


class Loads(Reducer):
    """The history of every layer; `last` is the latest measurement of all."""

    kinds = (LoadMeasured,)

    def __init__(self) -> None:
        self.last: LoadMeasured | None = None
        self._layers: dict[int, _Rows] = {}
        self._histories: tuple[LayerHistory, ...] | None = ()

    def update(self, event: LoadMeasured) -> None:
        self.last, self._histories = event, None
        for layer in event.layers:
            rows = self._layers.get(layer.layer)
            if rows is None or rows.experts != len(layer.load):  # another model: begin anew
                rows = self._layers[layer.layer] = _Rows(len(layer.load))
            rows.add(event.step, layer)

    def rewind(self, step: int) -> None:
        self._histories = None
        for rows in self._layers.values():
            rows.rewind(step)
        if self.last and self.last.step > step:
            self.last = None

    @property
    def imbalance(self) -> float | None:
        """The busiest expert's load over its layer's mean, now, where it is largest."""
        if not self.last:
            return None
        return max((layer.imbalance for layer in self.last.layers if sum(layer.load)), default=None)

    @property
    def layers(self) -> tuple[LayerHistory, ...]:
        """The layers that have experts, in the model's order."""
        if self._histories is None:
            self._histories = tuple(
                rows.history(layer) for layer, rows in sorted(self._layers.items()) if rows
            )
        return self._histories


class _Rows:
    """One layer's measurements; when there are too many, neighbours are summed two by two."""

    def __init__(self, experts: int) -> None:
        self.experts = experts
        self._rows: list[tuple[int, np.ndarray, int, np.ndarray | None, float]] = []
        self._every = self._filled = 1

    def __bool__(self) -> bool:
        return bool(self._rows and self.experts)

    def add(self, step: int, layer: LayerLoad) -> None:
        load = np.array(layer.load, dtype=np.int64)
        known = layer.bias is not None and len(layer.bias) == self.experts
        entropy = np.nan if layer.entropy is None else layer.entropy
        row = (step, load, layer.dropped, np.array(layer.bias) if known else None, entropy)
        if self._rows and self._filled < self._every:
            self._rows[-1] = _sum(self._rows[-1], row)
            self._filled += 1
            return
        if len(self._rows) >= MEASUREMENTS:
            pairs = zip(self._rows[::2], self._rows[1::2], strict=True)
            self._rows = [_sum(first, second) for first, second in pairs]
            self._every *= 2
        self._rows.append(row)
        self._filled = 1

    def rewind(self, step: int) -> None:
        self._rows = [row for row in self._rows if row[0] <= step]
        self._filled = self._every

    def history(self, layer: int) -> LayerHistory:
        steps, loads, dropped, biases, entropies = zip(*self._rows, strict=True)
        complete = all(bias is not None for bias in biases)
        return LayerHistory(
            layer=layer,
            steps=np.array(steps, dtype=np.int64),
            load=np.stack(loads),
            dropped=np.array(dropped, dtype=np.int64),
            bias=np.stack(biases) if complete else None,
            entropy=np.array(entropies) if np.isfinite(entropies).any() else None,
        )


def _sum(first, second):
    known = [each[4] for each in (first, second) if np.isfinite(each[4])]
    entropy = float(np.mean(known)) if known else np.nan
    return second[0], first[1] + second[1], first[2] + second[2], second[3], entropy
