"""A moving average of the weights, which is evaluated, sampled from and saved as the model.

Polyak & Juditsky 1992; exponential as in Tarvainen & Valpola 2017, arXiv:1703.01780. It follows the
weights closely at first: after t updates its decay is at most (1 + t) / (10 + t). Training goes on
with the weights themselves, which a checkpoint keeps beside the optimizer's state.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from coterie.train.optimizer import RoleParameter


def trained_name(parameter: str) -> str:
    """Return what a checkpoint whose model is an average calls a weight in training."""
    return f"ema.{parameter}.trained"


class WeightAverage:
    """The average of a decoder's parameters; begins at what they are.

    Args:
        parameters: in training.
        decay: of the average, for each step.
    """

    def __init__(self, parameters: Sequence[RoleParameter], decay: float) -> None:
        self._names = [each.name for each in parameters]
        self._live = [each.tensor.detach() for each in parameters]
        self._other = [tensor.clone() for tensor in self._live]  # the average, unless swapped
        self._decay = decay

    def update(self, step: int) -> None:
        """Follow the weights after a step, counted from 0."""
        weight = 1.0 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._other, self._live, weight)  # pyright: ignore[reportPrivateImportUsage]

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the decoder hold the average, at the places of its weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for live, other in zip(self._live, self._other, strict=True):
            kept = live.clone()
            live.copy_(other)
            other.copy_(kept)

    def tensors(self) -> list[Tensor]:
        """Return what is kept beside the decoder's own."""
        return self._other

    def trained(self) -> dict[str, Tensor]:
        """Return the weights in training by name, while the decoder holds the average."""
        names = map(trained_name, self._names)
        return dict(zip(names, self._other, strict=True))

    def load(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take the weights in training back, where the decoder holds the average.

        A checkpoint without any has no average: it begins at the weights there are. Returns the
        names that were used.
        """
        for name, live, other in zip(self._names, self._live, self._other, strict=True):
            other.copy_(live)
            if trained_name(name) in state:
                live.copy_(state[trained_name(name)])
        return {trained_name(name) for name in self._names} & set(state)
