"""The kernel of quantised experts: no expert is made float that no token chose."""

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.experts.dispatch import Dispatcher
from coterie.model.experts.kernel.gather import Gather
from coterie.model.experts.kernel.interface import ExpertKernel, Packs
from coterie.model.experts.kernel.loop import Loop
from coterie.model.mlp import MLPPart


class ChosenExperts(ExpertKernel):
    """The gather path for a lone token, the loop for others.

    Grouped and padded products would ask for all experts of a pack as one float tensor.
    """

    def __init__(self, instead_of: ExpertKernel) -> None:
        self._instead_of = instead_of
        self._gather, self._loop = Gather(), Loop()

    @classmethod
    def around(cls, kernel: ExpertKernel, quantised: bool) -> ExpertKernel:
        """Return the kernel for experts that are quantised or, instead of which it was, are not."""
        own = kernel._instead_of if isinstance(kernel, ChosenExperts) else kernel
        return cls(own) if quantised else own

    def chosen(
        self, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
    ) -> ExpertKernel:
        """Return the kernel for these tokens."""
        return self._gather if len(x) == 1 and dispatcher.local else self._loop

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        return self._loop.rows(pack, rows, counts)
