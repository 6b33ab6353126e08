"""Stochastic depth: in training, a branch of a block is left out for whole rows of the batch.

Huang et al. 2016, arXiv:1603.09382: the rate grows linearly with depth, layer l of L (from 1) is
left out with rate · l / L. What stays is divided by the share that stays, so that evaluation, which
leaves nothing out, sees the mean. Each branch draws for itself. A row that is left out is computed
all the same: routers see and count its tokens as those of any other row.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def depth_rate(rate: float, layer: int, layers: int) -> float:
    """Return the rate of layer number `layer` (from 0) of `layers`; the last one has the whole."""
    return rate * (layer + 1) / layers


class StochasticDepth(nn.Module):
    """Leaves out the updates of some rows."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, update: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if not (self.rate and self.training):
            return update
        return update * F.dropout(update.new_ones(update.shape[0], 1, 1), self.rate)
