"""Rotary positions: pairs of channels of queries and keys rotated by an angle that grows with t.

Su et al. 2021, arXiv:2104.09864: pair i of n/2 is rotated by t·θ^(−2i/n), so that the product of a
query and a key depends on their distance alone. Two layouts of the pairs exist: `half` joins
channel i with i + n/2 (Llama, GPT-NeoX), `interleaved` joins 2i with 2i + 1 (the paper, GPT-J).
How they reach beyond the context a model was trained on is the matter of `scaling`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.position.interface import PositionPart, Rotation, Span
from coterie.model.position.scaling import NoScaling, Scaling

Tables = tuple[Tensor, ...]


class RotaryPosition(Settings):
    """Settings of rotary positions."""

    kind: Literal["rotary"] = "rotary"
    theta: float = Field(default=10000.0, gt=0, description="base of the wavelengths")
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of each head that is rotated"
    )
    layout: Literal["half", "interleaved"] = Field(
        default="half", description="which channels pair up"
    )
    scaling: Scaling = Field(
        default=NoScaling(), description="how they reach beyond the context trained on"
    )

    def rotated(self, head_dim: int) -> int:
        """Return how many channels of a head are rotated."""
        return round(head_dim * self.fraction)

    def check(self, head_dim: int) -> None:
        """Make sure that the rotated channels of a head make pairs.

        Raises:
            ValueError: they do not, or are too few for the scaling.
        """
        channels = self.rotated(head_dim)
        if channels % 2 or channels == 0:
            raise ValueError(
                f"rotary positions turn pairs of channels, but fraction={self.fraction} of a head "
                f"with {head_dim} channels is {channels}; it must be even and not 0"
            )
        self.scaling.check(channels)

    def build(self, width: int, context: int) -> RotaryPositionPart:
        """Return the module; its tables are made for `context` positions and grow when needed."""
        return RotaryPositionPart(self, context)

    def counts(self, width: int, context: int) -> Count:
        """Return its count: it learns nothing."""
        scaling = f", {self.scaling.detail}" if self.scaling.detail else ""
        return Count("position", f"{self.kind}, θ = {self.theta:g}{scaling}")


class RotaryPositionPart(PositionPart):
    """Float32 tables of cosines and sines, per size of head and device, made once.

    Where the scaling makes frequencies depend on how long a text is, the tables of the latest
    length beyond the stable ones are kept besides; never more.
    """

    def __init__(self, settings: RotaryPosition, context: int) -> None:
        super().__init__()
        self.settings = settings
        self.context = context
        self.stable = settings.scaling.stable
        self._tables: dict[tuple[int, torch.device], Tables] = {}
        self._longer: dict[tuple[int, torch.device], tuple[int, Tables]] = {}

    def rotation(self, span: Span) -> Rotation:
        """Return the rotation of queries and keys [B, T, H, C] at the span's positions.

        The slices of the tables are taken once and shared by all layers.
        """
        slices: dict[int, Tables] = {}

        def rotate(x: Float[Tensor, "B T H C"]) -> Float[Tensor, "B T H C"]:
            rotated = self.settings.rotated(x.shape[-1])
            if rotated not in slices:
                slices[rotated] = self._slices(span, rotated)
            rotated_by = _rotate_half if self.settings.layout == "half" else _rotate_interleaved
            if rotated == x.shape[-1]:
                return rotated_by(x, *slices[rotated])
            return torch.cat(
                (rotated_by(x[..., :rotated], *slices[rotated]), x[..., rotated:]), dim=-1
            )

        return Rotation(rotate, self.settings.scaling.logit_scale)

    def held(self) -> list[Tensor]:
        return [table for tables in self._tables.values() for table in tables]

    def angles(
        self, positions: int, rotated: int
    ) -> tuple[Float[Tensor, "P n"], Float[Tensor, "P n"]]:
        """Return cosine and sine of each of n pairs at positions 0 … P − 1, on the CPU."""
        tables = self._reaching(positions, rotated, torch.device("cpu"))
        if self.settings.layout == "interleaved":
            unit = torch.view_as_real(tables[0][:, 0])
            return unit[..., 0].contiguous(), unit[..., 1].contiguous()
        pairs = rotated // 2
        cosine, signed_sine = (table[:, 0] for table in tables)
        return cosine[:, :pairs].contiguous(), signed_sine[:, pairs:].contiguous()

    def turned_further(
        self, x: Float[Tensor, "B T H C"], by: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T H C"]:
        turned = self.rotation(Span(0, x.shape[1], x.device, at=by))(x)
        scale, rotated = self.settings.scaling.turn_scale, self.settings.rotated(x.shape[-1])
        if scale == 1:  # what was rotated has been scaled already
            return turned
        return torch.cat((turned[..., :rotated] / scale, turned[..., rotated:]), -1)

    def _slices(self, span: Span, rotated: int) -> Tables:
        """Return the rows of the tables for the span's positions."""
        at = span.positions
        if at is None:
            stop = span.start + span.length
            assert self.stable is None or stop <= self.stable or span.start == 0, (
                f"beyond {self.stable} positions nothing that was rotated may come from a cache"
            )
            tables = self._reaching(stop, rotated, span.device)
            return tuple(table[span.start : stop] for table in tables)
        known = span.stop if span.given is None else None
        longest = int(at.max()) + 1 if known is None else known  # asking waits for the device
        if self.stable is not None and longest > self.stable:
            lengths = span.text_lengths
            assert lengths is not None, "frequencies depend on how long the texts are"
            return self._make(at.double(), lengths.double(), rotated, span.device)
        tables = self._reaching(longest, rotated, span.device)
        return tuple(table[at] for table in tables)

    def _reaching(self, positions: int, rotated: int, device: torch.device) -> Tables:
        """Return the tables for a text of so many positions, made (again) if need be."""
        # Tables made while generating must serve training as well.
        with torch.inference_mode(False), torch.no_grad():
            if self.stable is not None and positions > self.stable:
                length, longer = self._longer.get((rotated, device), (0, ()))
                if length != positions:
                    longer = self._count_up(positions, positions, rotated, device)
                    self._longer[rotated, device] = positions, longer
                return longer
            tables = self._tables.get((rotated, device))
            if tables is None or tables[0].shape[0] < positions:
                room = max(self.context, positions if tables is None else 2 * positions)
                tables = self._count_up(room, 1, rotated, device)
                self._tables[rotated, device] = tables
            return tables

    def _count_up(self, rows: int, length: int, rotated: int, device: torch.device) -> Tables:
        """Return tables of positions 0, 1, 2, … of a text of `length` tokens."""
        at = torch.arange(rows, dtype=torch.float64)
        return self._make(at, at.new_full((1,), length), rotated, device)

    def _make(
        self,
        at: Float[Tensor, "*#N"],
        lengths: Float[Tensor, "*#N"],
        rotated: int,
        device: torch.device,
    ) -> Tables:
        """Return the rotation at each of some positions, each in a text of so many tokens."""
        scaling = self.settings.scaling
        # In float64 up to the end: float32 loses whole radians at long distances.
        speeds = scaling.frequencies(self.settings.theta, rotated, lengths.cpu()[..., None])
        angles = (at.cpu()[..., None] * speeds)[..., None, :]
        if self.settings.layout == "interleaved":
            unit = torch.polar(torch.full_like(angles, scaling.turn_scale), angles)
            return (unit.to(torch.complex64).to(device),)
        cosine, sine = angles.cos() * scaling.turn_scale, angles.sin() * scaling.turn_scale
        both = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        return tuple(table.to(torch.float32).to(device) for table in both)


def _rotate_half(
    x: Float[Tensor, "B T H C"],
    cosine: Float[Tensor, "*B T 1 C"],
    signed_sine: Float[Tensor, "*B T 1 C"],
) -> Float[Tensor, "B T H C"]:
    # Not `roll`: its result is contiguous where x is not, and compilers then mistake the layout of
    # the sum of both gradients.
    swapped = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    rotated = torch.addcmul(x * cosine, swapped, signed_sine)
    return rotated.to(x.dtype)


def _rotate_interleaved(x: Float[Tensor, "B T H C"], unit: Tensor) -> Float[Tensor, "B T H C"]:
    work = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if work.stride(-2) % 2:  # part of a head of odd size: pairs do not begin on even places
        work = work.clone(memory_format=torch.contiguous_format)
    pairs = torch.view_as_complex(work.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * unit).flatten(-2).to(x.dtype)
