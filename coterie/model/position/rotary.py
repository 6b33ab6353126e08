"""Rotary positions: pairs of channels of queries and keys turned by an angle that grows with t.

Su et al. 2021, arXiv:2104.09864: pair i of n/2 is turned by t·θ^(−2i/n), so that the product of a
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
        default=1.0, gt=0, le=1, description="share of each head that is turned"
    )
    layout: Literal["half", "interleaved"] = Field(
        default="half", description="which channels pair up"
    )
    scaling: Scaling = Field(
        default=NoScaling(), description="how they reach beyond the context trained on"
    )

    def turned(self, head_dim: int) -> int:
        """Return how many channels of a head are turned."""
        return round(head_dim * self.fraction)

    def check(self, head_dim: int) -> None:
        """Make sure that the turned channels of a head make pairs.

        Raises:
            ValueError: they do not, or are too few for the scaling.
        """
        channels = self.turned(head_dim)
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

        return Rotation(rotate, self.settings.scaling.logit_scale)

    def _slices(self, span: Span, turned: int) -> Tables:
        """Return the rows of the tables for the span's positions."""
        if span.at is None:
            stop = span.start + span.length
            assert self.stable is None or stop <= self.stable or span.start == 0, (
                f"beyond {self.stable} positions nothing that was turned may come from a cache"
            )
            tables = self._reaching(stop, turned, span.device)
            return tuple(table[span.start : stop] for table in tables)
        longest = int(span.at.max()) + 1
        if self.stable is not None and longest > self.stable:
            lengths = document_lengths(span.at)
            return self._make(span.at.double(), lengths.double(), turned, span.device)
        tables = self._reaching(longest, turned, span.device)
        return tuple(table[span.at] for table in tables)

    def _reaching(self, positions: int, turned: int, device: torch.device) -> Tables:
        """Return the tables for a text of so many positions, made (again) if need be."""
        # Tables made while generating must serve training as well.
        with torch.inference_mode(False), torch.no_grad():
            if self.stable is not None and positions > self.stable:
                length, longer = self._longer.get((turned, device), (0, ()))
                if length != positions:
                    longer = self._count_up(positions, positions, turned, device)
                    self._longer[turned, device] = positions, longer
                return longer
            tables = self._tables.get((turned, device))
            if tables is None or tables[0].shape[0] < positions:
                room = max(self.context, positions if tables is None else 2 * positions)
                tables = self._count_up(room, 1, turned, device)
                self._tables[turned, device] = tables
            return tables

    def _count_up(self, rows: int, length: int, turned: int, device: torch.device) -> Tables:
        """Return tables of positions 0, 1, 2, … of a text of `length` tokens."""
        at = torch.arange(rows, dtype=torch.float64)
        return self._make(at, at.new_full((1,), length), turned, device)

    def _make(
        self,
        at: Float[Tensor, "*#N"],
        lengths: Float[Tensor, "*#N"],
        turned: int,
        device: torch.device,
    ) -> Tables:
        """Return the turn at each of some positions, each in a text of so many tokens."""
        scaling = self.settings.scaling
        # In float64 up to the end: float32 loses whole radians at long distances.
        speeds = scaling.frequencies(self.settings.theta, turned, lengths.cpu()[..., None])
        angles = (at.cpu()[..., None] * speeds)[..., None, :]
        if self.settings.layout == "interleaved":
            unit = torch.polar(torch.full_like(angles, scaling.turn_scale), angles)
            return (unit.to(torch.complex64).to(device),)
        cosine, sine = angles.cos() * scaling.turn_scale, angles.sin() * scaling.turn_scale
        both = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        return tuple(table.to(torch.float32).to(device) for table in both)


def document_lengths(at: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return for each token how many tokens its document has, from the positions in documents."""
    documents = (at == 0).cumsum(dim=1)
    longest = torch.zeros(at.shape[0], at.shape[1] + 1, dtype=at.dtype, device=at.device)
    longest.scatter_reduce_(1, documents, at + 1, "amax")
    return longest.gather(1, documents)


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
    if work.stride(-2) % 2:  # part of a head of odd size: pairs do not begin on even places
        work = work.clone(memory_format=torch.contiguous_format)
    pairs = torch.view_as_complex(work.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * unit).flatten(-2).to(x.dtype)
