"""The mixture of experts: score → select → dispatch → compute → combine → account.

Each step is a file of its own in this package; here they meet.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.settings import Settings
from coterie.model.count import Count
from coterie.model.experts.account import LayerRouting, keep_account
from coterie.model.experts.balance import Balance, NoBalance
from coterie.model.experts.bodies import Body, BodyPart
from coterie.model.experts.compute import AutoCompute, Compute
from coterie.model.experts.dispatch import combine, plan_dispatch, spread
from coterie.model.experts.pack import ExpertPack
from coterie.model.experts.router import RouterSettings
from coterie.model.part import Part


class RoutingMemory:
    """The selection of a layer's first pass, for a second pass that must repeat it exactly."""

    def __init__(self) -> None:
        self.indices: Int[Tensor, "N k"] | None = None


class MixtureOfExperts(Settings):
    """Settings of a routed feed-forward layer."""

    kind: Literal["moe"] = "moe"
    experts: tuple[ExpertPack, ...] = Field(
        min_length=1, description="packs of experts, all under one router"
    )
    shared_experts: int = Field(
        default=0, ge=0, description="experts that every token goes through"
    )
    shared_body: Body | None = Field(
        default=None, description="what a shared expert computes; None: as the first pack's"
    )
    experts_per_token: int = Field(ge=1, description="routed experts that a token goes to")
    router: RouterSettings = Field(default=RouterSettings(), description="who goes where")
    balance: Balance = Field(default=NoBalance(), description="what keeps experts evenly used")
    compute: Compute = Field(default=AutoCompute(), description="how experts are computed")

    @property
    def num_experts(self) -> int:
        """Routed experts of all packs together."""
        return sum(pack.count for pack in self.experts)

    def check(self, width: int) -> None:
        """Make sure that there are experts enough and that the router can learn.

        Raises:
            ValueError: not so.
        """
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token}, but there are only "
                f"{self.num_experts} routed experts"
            )
        self.router.check(self.experts_per_token)

    def build(self, width: int, layer: int) -> MixtureOfExpertsPart:
        """Return the module of layer number `layer`."""
        return MixtureOfExpertsPart(self, width, layer)

    def counts(self, width: int) -> Count:
        """Return its count.

        With packs of unequal experts a token's share is taken as even over all experts.
        """
        share = self.experts_per_token / self.num_experts
        parts = [self.router.counts(width, self.num_experts)]
        for number, pack in enumerate(self.experts):
            whole = pack.counts(f"experts.{number}", width)
            parts.append(
                Count(
                    whole.name,
                    f"{pack.count} × {pack.body.kind} {pack.body.hidden(width)}",
                    whole.parameters,
                    round(whole.active * share),
                    whole.flops * share,
                )
            )
        if self.shared_experts:
            shared = self.shared().counts("shared", width)
            parts.append(shared.times(self.shared_experts))
        detail = f"{self.experts_per_token} of {self.num_experts} experts"
        detail += f" + {self.shared_experts} shared" if self.shared_experts else ""
        return Count.of("feedforward", detail, parts)

    def shared(self) -> Body:
        """Return what a shared expert computes."""
        return self.experts[0].body if self.shared_body is None else self.shared_body


class MixtureOfExpertsPart(Part):
    """Routes each token to some experts and adds up what they answer."""

    def __init__(self, settings: MixtureOfExperts, width: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_experts = settings.num_experts
        self.z_loss = settings.router.z_loss
        self.router = settings.router.build(width, self.num_experts, settings.experts_per_token)
        self.balance = settings.balance.build(self.num_experts)
        self.experts = nn.ModuleList(pack.build(width) for pack in settings.experts)
        self.sizes = [pack.count for pack in settings.experts]
        self.shared = nn.ModuleList(
            settings.shared().build(width) for _ in range(settings.shared_experts)
        )
        self.compute = settings.compute.build()

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        valid: Bool[Tensor, "B T"] | None = None,
        memory: RoutingMemory | None = None,
    ) -> tuple[Float[Tensor, "B T D"], LayerRouting]:
        """Compute the layer.

        Args:
            x: the tokens.
            valid: which of them count in the account; None: all.
            memory: where the selection is kept for, or taken by, a second pass.
        """
        flat = x.flatten(0, 1)
        known = None if memory is None else memory.indices
        routing = self.router(flat, self.balance.selection_bias, known)
        if memory is not None:
            memory.indices = routing.indices
        dispatch = plan_dispatch(routing.indices, self.num_experts)
        rows = self._run(spread(flat, dispatch), dispatch.counts)
        mixed = combine(rows, routing.gates, dispatch)
        for expert in self.shared:
            mixed = mixed + expert(flat)
        counted = None if valid is None else valid.flatten()
        account = keep_account(
            self.layer, routing, self.router, self.balance, self.z_loss, counted, dispatch.counts
        )
        return mixed.view(x.shape), account

    def _run(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Send each pack's rows through it; packs lie one after the other."""
        if len(self.experts) == 1:
            return self.compute(cast(BodyPart, self.experts[0]), rows, counts)
        shares = counts.split(self.sizes)
        slices = rows.split([int(share.sum()) for share in shares])
        outputs = [
            self.compute(cast(BodyPart, pack), slice_, share)
            for pack, slice_, share in zip(self.experts, slices, shares, strict=True)
        ]
        return torch.cat(outputs)
