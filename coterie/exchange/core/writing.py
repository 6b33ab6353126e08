"""The tensors of a foreign file, computed from a decoder one entry at a time."""

from collections.abc import Iterable

import torch
from torch import Tensor

from coterie.exchange.core.reparametrise import Reparametrised
from coterie.exchange.core.tensor_map import Entry


class ForeignTensors:
    """Foreign tensors by name; those of one entry are computed together.

    Attributes:
        shapes: of all tensors, in the order of writing.
        exact: names of those that are written as float32 whatever the others are.
    """

    def __init__(self, entries: Iterable[Entry], own: Reparametrised) -> None:
        """Plan the tensors that the first layout of each entry names."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.exact: set[str] = set()
        self._own = own
        self._entries: dict[str, Entry] = {}
        self._waiting: dict[str, Tensor] = {}
        for entry in entries:
            hollow = [torch.empty(own.shapes[name], device="meta") for name in entry.own]
            layout = entry.layouts[0]
            for name, tensor in zip(layout.names, layout.to_foreign(hollow), strict=True):
                self._entries[name] = entry
                self.shapes[name] = tuple(tensor.shape)
                if entry.exact:
                    self.exact.add(name)

    def read(self, name: str) -> Tensor:
        """Return a tensor; the others of its entry are held until another entry is read."""
        if name not in self._waiting:
            entry = self._entries[name]
            layout = entry.layouts[0]
            found = layout.to_foreign([self._own.read(each) for each in entry.own])
            self._waiting = dict(zip(layout.names, found, strict=True))
        return self._waiting.pop(name)
