"""Balance: what keeps experts evenly used, a closed union.

A balance may hold a `selection_bias`, which the router adds to scores when it selects; it may
return a load balancing `loss` for what the router did, having `observe`d the load of each
micro-batch; and it may `update` itself from the loads of a whole optimizer step. The last is called
from outside, once per step, never in a forward pass.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.foundation.settings import Settings, union
from coterie.model.experts.means import mean_over
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
    """A balance that does nothing; each kind overrides what it needs.

    Attributes:
        total: sums a micro-batch's load over the processes that share it; by itself, none.
    """

    selection_bias: Tensor | None
    uses_loss: bool = False
    total: Callable[[Tensor], Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("selection_bias", None)
        self.total = _alone

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


def _alone(load: Tensor) -> Tensor:
    return load


class NoBalance(Settings):
    """No balance: the router is left to itself."""

    kind: Literal["none"] = "none"

    def build(self, experts: int) -> BalancePart:
        """Return a module that does nothing."""
        return BalancePart()


def batch_product(inputs: BalanceInputs) -> Float[Tensor, ""]:
    """Return the product over all valid tokens: Fedus et al. 2021, arXiv:2101.03961, equation 4.

    E · Σ_e f_e·P_e: f_e is expert e's share of the selected pairs, P_e the mean of the router's
    shares for it. Even routing gives 1. The gradient goes through P alone.
    """
    valid = None if inputs.valid is None else inputs.valid.flatten()
    mean = mean_over(inputs.probabilities.flatten(0, 1), valid)
    share = inputs.load / inputs.load.sum().clamp(min=1)
    return mean.shape[0] * (share.to(mean) @ mean)


def sequence_product(inputs: BalanceInputs) -> Float[Tensor, ""]:
    """Return the mean of each sequence's own product: DeepSeek-V3, arXiv:2412.19437, eq. 17–20.

    Sequences are weighted by their valid tokens, which makes no difference where all are full and
    gives the same sum however a batch is cut into micro-batches.
    """
    probabilities, indices, valid, _ = inputs
    experts = probabilities.shape[-1]
    chosen = F.one_hot(indices, experts + 1)[..., :experts].sum(-2).to(probabilities)  # [B, T, E]
    if valid is None:
        weights = probabilities.new_ones(probabilities.shape[:2])
    else:
        weights = valid.to(probabilities)
    tokens = weights.sum(1)  # [B]
    counts = torch.einsum("bt,bte->be", weights, chosen)
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    mean = torch.einsum("bt,bte->be", weights, probabilities) / tokens.clamp(min=1)[:, None]
    products = experts * torch.linalg.vecdot(share, mean)
    return (products * tokens).sum() / tokens.sum().clamp(min=1)


Scope = Literal["micro_batch", "sequence", "global"]
PRODUCTS: dict[Scope, Callable[[BalanceInputs], Tensor]] = {
    "micro_batch": batch_product,
    "sequence": sequence_product,
    "global": batch_product,
}


class AuxiliaryBalance(Settings):
    """The load balancing loss: coefficient · E · Σ f_e·P_e over experts; even routing costs least.

    Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, equation 4. Uniform routing gives the
    coefficient itself. It is taken per layer over valid tokens; whoever trains averages it over
    layers. The load behind f_e is that of

    - the micro-batch (`micro_batch`),
    - each sequence by itself, then averaged (`sequence`): DeepSeek-V3, arXiv:2412.19437, eq. 17–20,
    - all micro-batches of the optimizer step so far (`global`): Qiu et al. 2025, arXiv:2501.11873,
      section 3, where experts may specialise by sequence if the whole batch is spread evenly.
    """

    kind: Literal["auxiliary"] = "auxiliary"
    coefficient: float = Field(
        default=0.01, ge=0, description="its weight beside the language model's loss"
    )
    scope: Scope = Field(default="micro_batch", description="over what the load is to be even")

    def build(self, experts: int) -> "AuxiliaryBalancePart":
        return AuxiliaryBalancePart(self, experts)


class AuxiliaryBalancePart(BalancePart):
    """The product of shares; the gradient goes through the router's probabilities."""

    uses_loss = True
    observed: Tensor

    def __init__(self, settings: AuxiliaryBalance, experts: int) -> None:
        super().__init__()
        self.coefficient = settings.coefficient
        self.product = PRODUCTS[settings.scope]
        self.adds_up = settings.scope == "global"
        self.by_row = settings.scope == "sequence"
        # Empty between optimizer steps, when checkpoints are written: nothing to be saved.
        observed = torch.zeros(experts, dtype=torch.int64)
        self.register_buffer("observed", observed, persistent=False)

    @torch.no_grad()
    def observe(self, load: Int[Tensor, " E"]) -> Int[Tensor, " E"]:
        """Return the load of the step's micro-batches so far, this one included."""
        if self.by_row:
            return load
        load = self.total(load)
        if not self.adds_up:
            return load
        self.observed += load
        return self.observed.clone()

    def loss(self, inputs: BalanceInputs) -> Float[Tensor, ""]:
        """Return the term of one layer."""
        return self.coefficient * self.product(inputs)

    def update(self, load: Int[Tensor, " E"]) -> None:
        """Begin a new optimizer step."""
        self.observed.zero_()

    def forget(self) -> None:
        """Begin a new optimizer step."""
        self.observed.zero_()


class BiasBalance(Settings):
    """Balance without a loss: a bias per expert, added when selecting, moved after every step.

    Wang et al. 2024, arXiv:2408.15664; DeepSeek-V3, arXiv:2412.19437, section 2.1.2. After each
    optimizer step b_e moves by rate · sign(mean load − load_e), or in proportion to the lack:
    rate · (mean − load_e) / mean. The bias is mean-centred, for only differences select. Beside it
    DeepSeek-V3 (eq. 17–20, coefficient 0.0001) has a small loss on the balance of each sequence.
    """

    kind: Literal["bias"] = "bias"
    rate: float = Field(default=0.001, gt=0, description="how far the bias moves in a step")
    rule: Literal["sign", "proportional"] = Field(
        default="sign", description="by its direction alone, or in proportion to the lack"
    )
    sequence: float = Field(
        default=0.0, ge=0, description="coefficient of a loss on each sequence's own balance"
    )

    def build(self, experts: int) -> "BiasBalancePart":
        return BiasBalancePart(self, experts)


class BiasBalancePart(BalancePart):
    """Holds the bias, in float32 whatever the model is cast to."""

    def __init__(self, settings: BiasBalance, experts: int) -> None:
        super().__init__()
        self.settings = settings
        self.uses_loss = settings.sequence > 0
        self.selection_bias = torch.zeros(experts, dtype=torch.float32)

    def loss(self, inputs: BalanceInputs) -> Float[Tensor, ""]:
        """Return the loss on each sequence's own balance."""
        return self.settings.sequence * sequence_product(inputs)

    @torch.no_grad()
    def update(self, load: Int[Tensor, " E"]) -> None:
        """Move the bias towards experts with less than the mean load."""
        assert self.selection_bias is not None
        load = load.to(self.selection_bias)
        mean = load.mean()
        if self.settings.rule == "sign":
            step = torch.sign(mean - load)
        else:
            step = (mean - load) / mean.clamp(min=1)
        self.selection_bias += self.settings.rate * step
        self.selection_bias -= self.selection_bias.mean()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow the model to another device, but not to another precision."""
        before = self.selection_bias
        super()._apply(fn, recurse)
        assert before is not None
        assert self.selection_bias is not None
        if self.selection_bias.dtype != torch.float32:
            self.selection_bias = before.to(self.selection_bias.device)
        return self


Balance = Annotated[
    NoBalance | AuxiliaryBalance | BiasBalance, union(NoBalance, AuxiliaryBalance, BiasBalance)
]
