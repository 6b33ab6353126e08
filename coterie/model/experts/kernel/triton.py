"""Grouped products in Triton, whatever torch could do: for comparisons, and where it is faster."""

from typing import Literal

from torch import Tensor

from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import Settings
from coterie.model.experts.kernel.grouped import Grouped
from coterie.model.experts.kernel.products import has_triton
from coterie.model.mlp import MLPPart


class TritonKernel(Settings):
    """Settings of grouped products in Triton; on a CPU loops of our own take their place."""

    kind: Literal["triton"] = "triton"

    def build(self) -> "Triton":
        return Triton()


class Triton(Grouped):
    """Our own operator for every matrix."""

    def way(self, pack: MLPPart, x: Tensor, rows: int) -> Literal["own", "torch", "loop"]:
        """Return that it is ours.

        Raises:
            SettingsError: on a GPU without Triton.
        """
        if x.device.type != "cpu" and not has_triton():
            raise SettingsError(
                f"kernel=triton needs Triton on {x.device.type}, which is not installed.",
                hint="Run: pip install triton   or use kernel=auto, which goes without.",
            )
        return "own" if rows else "loop"
