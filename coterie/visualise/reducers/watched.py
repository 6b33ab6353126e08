"""Looks into routers and stream over the steps of a run."""

import numpy as np

from coterie.train.events import LayerWatched, RoutingWatched
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Curves

NUMBERS = ("residual", "attention", "feedforward", "entropy", "margin", "margin_low",
           "token", "token_null", "position", "position_null")  # fmt: skip


class Watched(Reducer):
    """What was seen at each look; `last` is the latest, `words` the texts of tokens by number."""

    kinds = (RoutingWatched,)

    def __init__(self) -> None:
        self.curves = Curves(limit=4096)
        self.last: RoutingWatched | None = None
        self.words: dict[int, str] = {}

    def update(self, event: RoutingWatched) -> None:
        self.last = event
        self.words |= event.words
        self.curves.add(event.step, {
            f"{layer.layer}/{name}": getattr(layer, name)
            for layer in event.layers for name in NUMBERS
        })  # fmt: skip

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)  # words stay: a token is called the same
        if self.last and self.last.step > step:
            self.last = None

    @property
    def routed(self) -> tuple[LayerWatched, ...]:
        """The layers with experts, as they were at the latest look."""
        return tuple(each for each in self.last.layers if each.experts) if self.last else ()

    def curve(self, layer: int, name: str) -> np.ndarray:
        """[N] one of `NUMBERS` over the looks, NaN where it was not measured."""
        return self.curves[f"{layer}/{name}"]

    def word(self, token: int) -> str:
        return self.words.get(token, f"#{token}")
