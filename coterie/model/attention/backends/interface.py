"""What every back end is handed, and what it answers.

A back end's settings `check` a mask before anything is built and `build` the function; the function
says in words what it cannot do (`refuses`) and otherwise takes a `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.attention.mask import Mask


@dataclass(frozen=True)
class Call:
    """One product of attention: softmax(scale · q·kᵀ) · v over what the mask lets through.

    Attributes:
        query: [B, H, T, C], of the last T positions.
        keys: [B, K, S, C]; head h of the queries reads head h // (H / K).
        values: [B, K, S, E].
        mask: which positions see which .
        lead: how many of the keys are the first positions of the text.
        first: the position of the key after those, from which on positions follow each other.
        starts: where each token's document begins in its row, where rows hold several; then the
            keys are those of the queries' own positions.
        dropout: share of the weights set to zero.
        scale: factor on the products of queries and keys.
    """

    query: Float[Tensor, "B H T C"]
    keys: Float[Tensor, "B K S C"]
    values: Float[Tensor, "B K S E"]
    mask: Mask
    lead: int
    first: int
    starts: Int[Tensor, "B T"] | None
    dropout: float
    scale: float

    @property
    def groups(self) -> int:
        """How many query heads share the keys of one head."""
        return self.query.shape[1] // self.keys.shape[1]

    @property
    def stop(self) -> int:
        """The position after the last one."""
        return self.first + self.keys.shape[2] - self.lead

    @property
    def differentiated(self) -> bool:
        """Whether gradients will be asked for."""
        inputs = (self.query, self.keys, self.values)
        return torch.is_grad_enabled() and any(each.requires_grad for each in inputs)

    @property
    def causal(self) -> bool:
        """Whether nothing but the future is hidden."""
        return self.mask.plain and self.starts is None

    @property
    def open(self) -> bool:
        """Whether nothing at all is hidden: one query that sees every key given."""
        return self.query.shape[2] == 1 and self.causal

    def queries_at(self) -> Int[Tensor, " T"]:
        """Return the positions of the queries."""
        return torch.arange(self.stop - self.query.shape[2], self.stop, device=self.query.device)

    def keys_at(self) -> Int[Tensor, " S"]:
        """Return the positions of the keys."""
        run = torch.arange(self.first, self.stop, device=self.query.device)
        if not self.lead:
            return run
        return torch.cat((torch.arange(self.lead, device=self.query.device), run))

    def visible(self) -> Bool[Tensor, "*B1 T S"]:
        """Return which keys each query sees: [T, S], or [B, 1, T, S] with documents."""
        if self.starts is None:
            return self.mask.visible(self.queries_at(), self.keys_at())
        at = torch.arange(self.starts.shape[1], device=self.starts.device) - self.starts
        same = self.starts[:, :, None] == self.starts[:, None, :]
        return (self.mask.visible(at, at) & same)[:, None]


@runtime_checkable
class BackendFunction(Protocol):
    """A built back end."""

    def refuses(self, call: Call) -> str | None:
        """Return in words why it cannot compute this, and what can; None where it can."""
        ...

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
