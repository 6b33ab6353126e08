"""Rotary positions: pairs of channels of queries and keys turned by an angle that grows with t.

Su et al. 2021, arXiv:2104.09864: pair i of n/2 is turned by t·θ^(−2i/n), so that the product of a
query and a key depends on their distance alone. Two layouts of the pairs exist: `half` joins
channel i with i + n/2 (Llama, GPT-NeoX), `interleaved` joins 2i with 2i + 1 (the paper, GPT-J).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.count import Count
from coterie.model.position.interface import PositionPart, Rotation, Span

Tables = tuple[Tensor, ...]


class RotaryPosition(Settings):
    """Settings of rotary positions."""

    kind: Literal["rotary"] = "rotary"
    theta: float = Field(default=10000.0, gt=0, description="base of the wavelengths")
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of each head that is turned"
    )
    layout: Literal["half", "interleaved"] = Field(
        default="half", description="which channels pair up"
    )

    def turned(self, head_dim: int) -> int:
        """Return how many channels of a head are turned."""
        return round(head_dim * self.fraction)

    def check(self, head_dim: int) -> None:
        """Make sure that the turned channels of a head make pairs.

        Raises:
            ValueError: they do not.
        """
        channels = self.turned(head_dim)
        if channels % 2 or channels == 0:
            raise ValueError(
                f"rotary positions turn pairs of channels, but fraction={self.fraction} of a head "
                f"with {head_dim} channels is {channels}; it must be even and not 0"
            )

    def build(self, width: int, context: int) -> RotaryPositionPart:
        """Return the module; its tables are made for `context` positions and grow when needed."""
        return RotaryPositionPart(self, context)

    def counts(self, width: int, context: int) -> Count:
        """Return its count: it learns nothing."""
        return Count("position", f"{self.kind}, θ = {self.theta:g}")


class RotaryPositionPart(PositionPart):
    """Float32 tables of cosines and sines, per size of head and device, made once."""

    def __init__(self, settings: RotaryPosition, context: int) -> None:
        super().__init__()
        self.settings = settings
        self.context = context
        self._tables: dict[tuple[int, torch.device], Tables] = {}

    def rotation(self, span: Span) -> Rotation:
        """Return the turn of queries and keys [B, T, H, C] at the span's positions.

        The slices of the tables are taken once and shared by all layers.
        """
        slices: dict[int, Tables] = {}

        def rotate(x: Float[Tensor, "B T H C"]) -> Float[Tensor, "B T H C"]:
            turned = self.settings.turned(x.shape[-1])
            if turned not in slices:
                slices[turned] = self._slices(span, turned)
            turn = _turn_half if self.settings.layout == "half" else _turn_interleaved
            if turned == x.shape[-1]:
                return turn(x, *slices[turned])
            return torch.cat((turn(x[..., :turned], *slices[turned]), x[..., turned:]), dim=-1)

        return Rotation(rotate)

    def _slices(self, span: Span, turned: int) -> Tables:
        """Return the rows of the tables for the span's positions."""
        if span.at is None:
            stop = span.start + span.length
            tables = self._at_least(stop, turned, span.device)
            return tuple(table[span.start : stop] for table in tables)
        tables = self._at_least(int(span.at.max()) + 1, turned, span.device)
        return tuple(table[span.at] for table in tables)

    def _at_least(self, positions: int, turned: int, device: torch.device) -> Tables:
        """Return the tables, made (again) if they do not reach far enough."""
        tables = self._tables.get((turned, device))
        if tables is None or tables[0].shape[0] < positions:
            room = max(self.context, positions if tables is None else 2 * positions)
            # Tables made while generating must serve training as well.
            with torch.inference_mode(False), torch.no_grad():
                tables = self._make(room, turned, device)
            self._tables[turned, device] = tables
        return tables

    def _make(self, positions: int, turned: int, device: torch.device) -> Tables:
        # In float64 up to the end: float32 loses whole radians at long distances.
        exponent = torch.arange(0, turned, 2, dtype=torch.float64) / turned
        angles = torch.outer(
            torch.arange(positions, dtype=torch.float64), self.settings.theta**-exponent
        )[:, None]
        if self.settings.layout == "interleaved":
            unit = torch.polar(torch.ones_like(angles), angles)
            return (unit.to(torch.complex64).to(device),)
        cosine, sine = angles.cos(), angles.sin()
        both = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        return tuple(table.to(torch.float32).to(device) for table in both)


def _turn_half(
    x: Float[Tensor, "B T H C"],
    cosine: Float[Tensor, "*B T 1 C"],
    signed_sine: Float[Tensor, "*B T 1 C"],
) -> Float[Tensor, "B T H C"]:
    # Not `roll`: its answer is contiguous where x is not, and compilers then mistake the layout of
    # the sum of both gradients.
    swapped = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    turned = torch.addcmul(x * cosine, swapped, signed_sine)
    return turned.to(x.dtype)


def _turn_interleaved(x: Float[Tensor, "B T H C"], unit: Tensor) -> Float[Tensor, "B T H C"]:
    work = x if x.dtype in (torch.float32, torch.float64) else x.float()
    pairs = torch.view_as_complex(work.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * unit).flatten(-2).to(x.dtype)
