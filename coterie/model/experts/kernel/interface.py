"""What a layer asks of its expert kernel.

A kernel is told how sorted rows go through one pack (`rows`); dispatch and combine around it are
the same for all (`mix`). One that needs no sorting overrides `mix`; one that leaves the work to
others overrides `chosen`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.model.experts.dispatch import Dispatcher
from coterie.model.feedforward import MLPPart

Packs = Sequence[MLPPart]
"""The experts of a layer; numbers go on from pack to pack."""


class ExpertKernel(ABC):
    """Sends tokens through their experts and adds up what those return."""

    def compiles(self, packs: Packs, x: Tensor, *, partial: bool) -> bool:
        """Return whether compiled programs may hold it: whether its shapes are always the same."""
        return False

    def chosen(
        self, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
    ) -> ExpertKernel:
        """Return the kernel that computes these tokens: by default this one."""
        return self

    def mix(
        self,
        packs: Packs,
        x: Float[Tensor, "N D"],
        indices: Int[Tensor, "N k"],
        gates: Float[Tensor, "N k"],
        dispatcher: Dispatcher,
        *,
        partial: bool,
    ) -> Float[Tensor, "N D"]:
        """Return each token's sum of its experts' outputs, weighted by its gates.

        Args:
            packs: the experts, E together.
            x: the tokens.
            indices: experts of each token; E stands for none.
            gates: their weights; 0 for none.
            dispatcher: brings tokens to experts and back.
            partial: whether indices may hold E.
        """
        rows, counts, route = dispatcher.dispatch(x, indices, partial=partial)
        if len(packs) == 1:
            outputs = self.rows(packs[0], rows, counts)
        else:
            shares = counts.split([pack.count for pack in packs])
            slices = rows.split(torch.stack([share.sum() for share in shares]).tolist())
            outputs = torch.cat([
                # a pack without weights needs no kernel
                self.rows(pack, slice_, share) if pack.names else pack.run(slice_, (), F.linear)
                for pack, slice_, share in zip(packs, slices, shares, strict=True)
            ])  # fmt: skip
        return dispatcher.combine(outputs, gates, route)

    @abstractmethod
    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert, `counts` of them for each expert of the pack."""
        ...
