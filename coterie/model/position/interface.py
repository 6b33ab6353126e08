"""What the decoder asks of a position module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.model.part import Part

Rotate = Callable[[Tensor], Tensor]
"""Turns queries or keys [B, T, H, C] by the positions it was made for."""


class PositionPart(Part):
    """A position module that does nothing; each kind overrides what it needs."""

    limit: int | None = None

    def embed(self, start: int, length: int) -> Float[Tensor, "T D"] | None:
        """Return what is added to the embeddings of `length` tokens from position `start` on."""
        return None

    def rotation(self, start: int, length: int, device: torch.device) -> Rotate | None:
        """Return how queries and keys at these positions are turned."""
        return None
