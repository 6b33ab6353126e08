"""What a layer asks of its expert kernel.

A kernel is told how sorted rows go through one pack (`rows`); dispatch and combine around it are
the same for all (`mix`). One that needs no sorting overrides `mix`; one that leaves the work to
others overrides `chosen`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coterie.model.experts.dispatch import Dispatcher, knows_counts
from coterie.model.mlp import MLPPart

Packs = Sequence[MLPPart]
"""The experts of a layer; numbers go on from pack to pack."""


class ExpertKernel(ABC):
    """Sends tokens through their experts and adds up what those return."""

    def compiles(self, packs: Packs, x: Tensor, *, partial: bool) -> bool:
        """Return whether compiled programs may hold it: whether its shapes are always the same."""
        return False

    def chosen(
        self, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
    ) -> "ExpertKernel":
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
            indices: experts of each token; E stands for none.
            gates: their weights; 0 for none.
            partial: whether indices may hold E.
        """
        # Cast once, before there are k rows of each token; their gradients are summed likewise.
        x = x.to(product_dtype(x))
        rows, counts, route = dispatcher.dispatch(x, indices, partial=partial)
        if len(packs) == 1:
            outputs = self.rows(packs[0], rows, counts)
        else:
            outputs = self._by_pack(packs, rows, counts)
        return dispatcher.combine(outputs, gates, route)

    def _by_pack(self, packs: Packs, rows: Tensor, counts: Tensor) -> Tensor:
        """Compute rows pack after pack, each its slice.

        Off the CPU nobody waits for the slices' sizes: each pack gets all rows, turned so that its
        own come first, and computes those.
        """
        shares = counts.split([pack.count for pack in packs])
        sizes = torch.stack([share.sum() for share in shares])
        number, turned = rows.shape[0], rows.shape[0] > 0 and not knows_counts(rows)
        if turned:
            there, back = _turns(sizes, number)
            slices = Picked.apply(rows, there, back).split(number)  # pyright: ignore
        else:
            slices = rows.split(sizes.tolist())
        outputs = [
            # a pack without weights needs no kernel
            self.rows(pack, slice_, share) if pack.names else pack.run(slice_, (), F.linear)
            for pack, slice_, share in zip(packs, slices, shares, strict=True)
        ]
        if not turned:
            return torch.cat(outputs)
        filled = [F.pad(each, (0, 0, 0, number - each.shape[0])) for each in outputs]
        return Picked.apply(torch.cat(filled), back, there)  # pyright: ignore

    @abstractmethod
    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "M D"]:
        """Compute rows sorted by expert, `counts` of them for each expert of the pack.

        Off the CPU rows of no expert may follow; nobody reads what is returned for them.
        """


def owners(counts: Int[Tensor, " E"], rows: int) -> Int[Tensor, " R"]:
    """Return the expert of each row; E for rows of none, which come last."""
    places = torch.arange(rows, device=counts.device)
    return torch.searchsorted(counts.cumsum(0), places, right=True)


def _turns(sizes: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return which row stands at each place of the turned copies, [P·R], and each row's place."""
    places = torch.arange(rows, device=sizes.device)
    begins = sizes.cumsum(0) - sizes
    there = (places + begins[:, None]).remainder(rows).flatten()
    pack = owners(sizes, rows).clamp(max=sizes.shape[0] - 1)
    return there, pack * rows + places - begins[pack]


class Picked(torch.autograd.Function):
    """Rows by number, whose gradients are picked as well: what is not read back gets any."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the type to multiply in; autocast does not know grouped products."""
    device = x.device.type
    wide = x.dtype == torch.float64
    if wide or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)
