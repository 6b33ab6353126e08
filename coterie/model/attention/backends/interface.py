"""What every back end is handed, and what it returns.

A back end's settings `check` a mask before anything is built and `build` the function; the function
says in words what it cannot do (`refuses`) and otherwise takes a `Call`.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.attention.mask import Mask
from coterie.model.geometry import Geometry


@dataclass(frozen=True)
class Call:
    """One product of attention: softmax(scale · q·kᵀ) · v over what the mask lets through.

    Attributes:
        query: [B, H, T, C]; head h reads head h // (H / K) of the keys.
        keys: [B, K, S, C].
        values: [B, K, S, E].
        mask: which positions see which.
        geometry: where queries and keys stand.
        dropout: share of the weights set to zero.
        scale: factor on the products of queries and keys.
    """

    query: Float[Tensor, "B H T C"]
    keys: Float[Tensor, "B K S C"]
    values: Float[Tensor, "B K S E"]
    mask: Mask
    geometry: Geometry
    dropout: float
    scale: float

    @property
    def groups(self) -> int:
        """How many query heads share the keys of one head."""
        return self.query.shape[1] // self.keys.shape[1]

    @property
    def differentiated(self) -> bool:
        """Whether gradients will be asked for."""
        inputs = (self.query, self.keys, self.values)
        return torch.is_grad_enabled() and any(each.requires_grad for each in inputs)

    @property
    def causal(self) -> bool:
        """Whether nothing but the future is hidden."""
        return self.mask.plain and not self.geometry.per_row

    @property
    def open(self) -> bool:
        """Whether nothing at all is hidden: one query that sees every key given."""
        return self.query.shape[2] == 1 and self.causal

    def visible(self) -> Bool[Tensor, "*B1 T S"]:
        """Return which keys each query sees: [T, S], or [B, 1, T, S] where rows differ."""
        seen = self.geometry.visible(self.mask, self.query.device)
        return seen[:, None] if self.geometry.per_row else seen


@runtime_checkable
class BackendFunction(Protocol):
    """A built back end."""

    def refuses(self, call: Call) -> str | None:
        """Return in words why it cannot compute this, and what can; None where it can, as here."""
        return None

    def scores(self, call: Call) -> int:
        """Return how many scores it holds at once, about; 0 where a fused kernel holds none."""
        ...

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        """Compute it."""
        ...


class BackendSettings(Settings):
    """Base of the back ends' settings."""

    def check(self, mask: Mask) -> None:
        """Make sure that it can express a mask; this one can express all.

        Raises:
            ValueError: it cannot; the message names one that can.
        """

    def build(self) -> BackendFunction:
        """Return the function; called anew for every product, so it must be cheap."""
        raise NotImplementedError


def all_scores(call: Call) -> int:
    """Return how many scores there are: B · H · T · S."""
    batch, heads, queries, _ = call.query.shape
    return batch * heads * queries * call.keys.shape[2]


def shared_heads(each: Float[Tensor, "B K S C"], groups: int) -> Float[Tensor, "B H S C"]:
    """Return keys or values once for every query head that reads them."""
    return each if groups == 1 else each.repeat_interleave(groups, dim=1)


def of_equal_channels(call: Call) -> list[Tensor]:
    """Return queries, keys and values of as many channels each, as fused kernels of the CPU want.

    Zeros are added where channels lack; they add nothing to products and leave zeros in the result.
    """
    width = max(call.values.shape[3], call.keys.shape[3])
    return [
        each if each.shape[3] == width else F.pad(each, (0, width - each.shape[3]))
        for each in (call.query, call.keys, call.values)
    ]
