"""Gradients and updates of a model's parts over the steps."""

import numpy as np

from coterie.train.events import PartsMeasured
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Curves

_GRADIENT, _UPDATE = "gradient/", "update/"


class Parts(Reducer):
    """Norms of gradients, and updates over weights, by the part's name."""

    kinds = (PartsMeasured,)

    def __init__(self) -> None:
        self.curves = Curves()

    def update(self, event: PartsMeasured) -> None:
        gradients = {_GRADIENT + each.part: each.gradient_norm for each in event.parts}
        updates = {_UPDATE + each.part: each.update_ratio for each in event.parts}
        self.curves.add(event.step, gradients | updates)

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)

    @property
    def gradients(self) -> dict[str, np.ndarray]:
        """[N] the norm of each part's gradient, before clipping."""
        return self.curves.under(_GRADIENT)

    @property
    def updates(self) -> dict[str, np.ndarray]:
        """[N] how far each part's weights were moved, over how large they were."""
        return self.curves.under(_UPDATE)
