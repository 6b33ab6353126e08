"""The memory of watched steps, part by part."""

import numpy as np

from coterie.train.events import MemoryProfiled
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Curves

_PART = "part/"


class MemoryByPart(Reducer):
    """What each part held in each watched step; `last` is the latest of all.

    A part's figure is the largest of those of the three passes, so that it does not jump where
    another pass becomes the fullest.
    """

    kinds = (MemoryProfiled,)

    def __init__(self) -> None:
        self.curves = Curves()
        self.last: MemoryProfiled | None = None

    def update(self, event: MemoryProfiled) -> None:
        self.last = event
        parts = {_PART + each.name: float(max(each.forward, each.backward, each.update))
                 for each in event.parts}  # fmt: skip
        self.curves.add(event.step, {"peak": float(sum(event.at_peak().values())), **parts,
                                     "process": event.process_bytes})  # fmt: skip

    def rewind(self, step: int) -> None:
        self.curves.rewind(step)
        if self.last and self.last.step > step:
            self.last = None

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """[N] bytes of each part, the one that ever held most first."""
        found = self.curves.under(_PART)
        return dict(sorted(found.items(), key=lambda each: -float(np.nanmax(each[1]))))
