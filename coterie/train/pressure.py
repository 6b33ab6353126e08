"""As many rows at once as memory allows: fewer where it becomes short, more where there is plenty.

Only into how many micro-batches a step's batch is cut changes, so the tokens of a step, its loss
and its gradient stay what they are but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

SHORT, PLENTY = 0.85, 0.65
"""Shares of the memory in use above which a micro-batch shrinks, and below which it grows."""
SHRINK, GROW = 0.8, 1.2
"""What its rows are multiplied by then; the cut is the next one into equal parts."""

Read = Callable[[], float | None]
"""Returns the share of the memory that is in use; None where nobody can tell."""


class MemoryPressure:
    """Decides after each step how finely the next one is cut.

    Args:
        read: asked after each step.
        pieces: micro-batches of a step now.
        most: of a step: as many as it has rows.
    """

    def __init__(self, read: Read, pieces: int, most: int) -> None:
        self._read, self._most = read, most
        self._wanted, self._least = float(pieces), 1

    def decide(self, pieces: int) -> tuple[int, float | None]:
        """Return the micro-batches of the next step, and the reading they follow.

        Args:
            pieces: of the step just taken; more than was decided where its memory did not suffice.
                It is never cut more coarsely than that again.
        """
        if pieces > math.ceil(self._wanted - 1e-9):
            self._wanted, self._least = float(pieces), pieces
        pressure = self._read()
        if pressure is None:
            return pieces, None
        if pressure > SHORT:
            self._wanted = min(self._wanted / SHRINK, float(self._most))
        elif pressure < PLENTY:
            self._wanted = max(self._wanted / GROW, float(self._least))
        return math.ceil(self._wanted - 1e-9), pressure


def reader(device: torch.device, meminfo: Path = Path("/proc/meminfo")) -> Read:
    """Return what reads the memory of a device, whoever uses it: a GPU's own, or the machine's."""

    def gpu() -> float:
        free, total = torch.cuda.mem_get_info(device)
        return 1 - free / total

    def machine() -> float | None:
        try:
            lines = meminfo.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return 1 - sizes["MemAvailable"] / sizes["MemTotal"]

    return gpu if device.type == "cuda" else machine
