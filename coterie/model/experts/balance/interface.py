"""What a routed layer asks of its balance."""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from coterie.model.part import Part


class BalanceInputs(NamedTuple):
    """What a router did with a batch, as a balance judges it.

    Attributes:
        probabilities: the router's shares of each token, differentiable, [B, T, E].
        indices: selected experts, before any drop, [B, T, k]; E where there is none.
        valid: which tokens count, [B, T]; None: all.
        load: valid pairs of each expert, [E]; of more micro-batches where the balance's `observe`
            added them.
    """

    probabilities: Tensor
    indices: Tensor
    valid: Tensor | None
    load: Tensor


class BalancePart(Part):
    """A balance that does nothing; each kind overrides what it needs."""

    selection_bias: Tensor | None
    uses_loss: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("selection_bias", None)

    def observe(self, load: Int[Tensor, " E"]) -> Int[Tensor, " E"]:
        """Take note of a micro-batch's load and return the load that the loss goes by.

        Called in training, once for each forward pass and not when it is repeated.
        """
        return load

    def loss(self, inputs: BalanceInputs) -> Tensor:
        """Return a differentiable term [], coefficient included."""
        return inputs.probabilities.new_zeros(())

    def update(self, load: Int[Tensor, " E"]) -> None:
        """Learn from the loads of a whole optimizer step."""

    def forget(self) -> None:
        """Drop what was observed: the optimizer step was not made."""
