"""What a layer asks of its expert computation.

Most computations are told only how sorted rows go through one pack (`rows`); dispatch and combine
around it are the same for all (`mix`). One that needs no sorting does all of it itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.model.experts.bodies import BodyPart
from coterie.model.experts.dispatch import combine, plan_dispatch, spread
from coterie.model.uncompiled import uncompiled


class Computation(ABC):
    """Sends tokens through their experts and adds up the answers."""

    def mix(
        self,
        packs: Iterable[nn.Module],
        sizes: Sequence[int],
        x: Float[Tensor, "N D"],
        indices: Int[Tensor, "N k"],
        gates: Float[Tensor, "N k"],
        *,
        partial: bool,
    ) -> Float[Tensor, "N D"]:
        """Return each token's sum of its experts' answers, weighed by its gates.

        Args:
            packs: the experts; numbers go on from pack to pack.
            sizes: experts of each pack.
            x: the tokens.
            indices: experts of each token; E stands for none.
            gates: their weights; 0 for none.
            partial: whether indices may hold E.
        """
        bodies = [cast(BodyPart, pack) for pack in packs]
        call = _outside if torch.compiler.is_compiling() else _call
        return call(self, bodies, sizes, x, indices, gates, partial)

    def _mix(
        self,
        packs: Sequence[BodyPart],
        sizes: Sequence[int],
        x: Tensor,
        indices: Tensor,
        gates: Tensor,
        *,
        partial: bool,
    ) -> Tensor:
        """Sort, compute pack by pack, and combine."""
        dispatch = plan_dispatch(indices, sum(sizes), partial=partial)
        rows = spread(x, dispatch)
        if len(packs) == 1:
            return combine(self._one(packs[0], rows, dispatch.counts), gates, dispatch)
        shares = dispatch.counts.split(list(sizes))
        slices = rows.split([int(share.sum()) for share in shares])
        outputs = [
            self._one(pack, slice_, share)
            for pack, slice_, share in zip(packs, slices, shares, strict=True)
        ]
        return combine(torch.cat(outputs), gates, dispatch)

    def _one(self, pack: BodyPart, rows: Tensor, counts: Tensor) -> Tensor:
        """Send a pack's rows through it; a pack without weights needs no computation."""
        if not pack.names:
            return pack.run(rows, (), F.linear)
        return self.rows(pack, rows, counts)

    @abstractmethod
    def rows(
        self, pack: BodyPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        """Compute rows sorted by expert, `counts` of them for each expert of the pack."""
        ...


def _call(
    computation: Computation,
    packs: Sequence[BodyPart],
    sizes: Sequence[int],
    x: Tensor,
    indices: Tensor,
    gates: Tensor,
    partial: bool,
) -> Tensor:
    return computation._mix(packs, sizes, x, indices, gates, partial=partial)


# What runs here depends on who was selected, so a compiler would recompile for every batch;
# besides, torch's grouped product in float32 is unknown to it. It stays outside the graph.
_outside = uncompiled(_call)
