"""The mixture of experts: score → select → dispatch → kernel → combine → statistics.

Each step is a file of its own in this package; here they meet.

Layers of published models, in these settings (see `router` for their routers): Qwen2-MoE has
`shared_experts: 1` with `shared_gate: true` and a `shared_mlp` of its own width; the one shared MLP
of DeepSeek-V2/V3 and Glm4-MoE, n times as wide as a routed one, is `shared_experts: 1` with that
width, or `shared_experts: n` with the routed width, which is the same function. All their experts
are `gated` (SwiGLU) without biases.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.settings import Settings
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count, linear
from coterie.model.experts.balance import Balance, NoBalance
from coterie.model.experts.capacity import draw_excluded, overflow_mask
from coterie.model.experts.dispatch import Dispatcher, LocalDispatcher
from coterie.model.experts.kernel import AutoKernel, ExpertKernel, Kernel
from coterie.model.experts.pack import ExpertPack
from coterie.model.experts.router import RouterSettings, Routing
from coterie.model.experts.router_stats import RouterStats, measure_routing
from coterie.model.mlp import MLP, ExpertMLP, MLPPart
from coterie.model.part import Part
from coterie.model.uncompiled import uncompiled


class MixtureOfExperts(Settings):
    """Settings of a routed feed-forward layer."""

    renamed = {"shared_body": "shared_mlp", "capacity": "capacity_factor", "compute": "kernel"}

    kind: Literal["moe"] = "moe"
    experts: tuple[ExpertPack, ...] = Field(
        min_length=1, description="packs of experts, all under one router"
    )
    shared_experts: int = Field(
        default=0, ge=0, le=1024, description="experts that every token goes through"
    )
    shared_mlp: MLP | None = Field(
        default=None, description="what a shared expert computes; None: as the first pack's"
    )
    shared_gate: bool = Field(
        default=False, description="multiply the shared experts' sum by a sigmoid of the token"
    )
    experts_per_token: int = Field(ge=1, description="routed experts that a token goes to, at most")
    router: RouterSettings = Field(default=RouterSettings(), description="who goes where")
    balance: Balance = Field(default=NoBalance(), description="what keeps experts evenly used")
    capacity_factor: float | None = Field(
        default=None,
        gt=0,
        description="an expert's room in training, relative to an even load; None: unlimited",
    )
    expert_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="probability that an expert is excluded from a training batch",
    )
    kernel: Kernel = Field(default=AutoKernel(), description="how experts are computed")

    @property
    def num_experts(self) -> int:
        """Routed experts of all packs together."""
        return sum(pack.count for pack in self.experts)

    def check(self, width: int) -> None:
        """Make sure that there are enough experts and that the router can learn.

        Raises:
            ValueError: not so.
        """
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token}, but there are only "
                f"{self.num_experts} routed experts"
            )
        if self.shared_gate and not self.shared_experts:
            raise ValueError("shared_gate needs shared experts; set shared_experts")
        if not any(pack.computes for pack in self.experts):
            raise ValueError("every expert is “null”; at least one pack must compute something")
        self.router.check(self.num_experts, self.experts_per_token)

    def build(self, width: int) -> "MixtureOfExpertsPart":
        return MixtureOfExpertsPart(self, width)

    def counts(self, width: int) -> Count:
        """Return its count.

        With packs of unequal experts a token's share is taken as even over all experts; where the
        number of experts varies, as the largest.
        """
        share = self.experts_per_token / self.num_experts
        parts = [self.router.counts(width, self.num_experts)]
        for number, pack in enumerate(self.experts):
            whole = pack.counts(f"experts.{number}", width)
            parts.append(
                Count(
                    whole.name,
                    f"{pack.count} × {pack.mlp.label} {pack.mlp.hidden(width) or ''}".rstrip(),
                    whole.parameters,
                    round(whole.active * share),
                    whole.flops * share,
                )
            )
        if self.shared_experts:
            shared = self.shared().counts("shared", width)
            parts.append(shared.times(self.shared_experts))
        if self.shared_gate:
            parts.append(linear("shared_gate", width, 1))
        detail = f"{self.experts_per_token} of {self.num_experts} experts"
        detail += f" + {self.shared_experts} shared" if self.shared_experts else ""
        return Count.of("feedforward", detail, parts)

    def shared(self) -> ExpertMLP:
        """Return what a shared expert computes."""
        computing = (pack.mlp for pack in self.experts if pack.computes)
        return next(computing) if self.shared_mlp is None else self.shared_mlp


class MixtureOfExpertsPart(Part):
    """Routes each token to some experts and adds up what they return.

    Attributes:
        dispatcher: brings tokens to their experts; may be replaced from outside.
        overflow: says which pairs find no room; may be replaced where several processes share it.
    """

    def __init__(self, settings: MixtureOfExperts, width: int) -> None:
        super().__init__()
        self.num_experts = settings.num_experts
        self.z_loss = settings.router.z_loss
        self.capacity_factor = settings.capacity_factor
        self.expert_dropout = settings.expert_dropout
        self.router = settings.router.build(width, self.num_experts, settings.experts_per_token)
        self.balance = settings.balance.build(self.num_experts)
        self.experts = nn.ModuleList(pack.build(width) for pack in settings.experts)
        self.shared = nn.ModuleList(
            settings.shared().build(width) for _ in range(settings.shared_experts)
        )
        self.shared_gate = SharedGate(width) if settings.shared_gate else None
        self.dispatcher: Dispatcher = LocalDispatcher(self.num_experts)
        self.kernel: ExpertKernel = settings.kernel.build()
        self.overflow = overflow_mask

    def forward(
        self, x: Float[Tensor, "B T D"], context: ForwardContext = EMPTY
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        """Compute the layer; load, capacity and losses count `context.valid` tokens alone."""
        valid, replay, flat = context.valid, context.replay, x.flatten(0, 1)
        routing = self.router(
            flat,
            self.balance.selection_bias,
            None if replay is None else replay.indices,
            self._draw_excluded(x.device),
        )
        indices, gates, dropped = self._drop_overflow(routing, x.shape, valid)
        partial = routing.partial or dropped is not None
        mixed = self._mix(flat, indices, gates, partial)
        if self.shared:
            mixed = mixed + self._shared(flat)
        if replay is not None:
            if replay.compares:
                bias = self.balance.selection_bias
                replay.own = self.router.select(routing.scores.detach(), bias)
            replay.indices = routing.indices
        if not context.router_stats:
            return mixed.view(x.shape), None
        stats, balance_load = measure_routing(
            self.router, self.balance, self.z_loss, routing, (x.shape[0], x.shape[1]), valid,
            None if replay is None else replay.balance_load, dropped,
        )  # fmt: skip
        if replay is not None:
            replay.balance_load = balance_load
        return mixed.view(x.shape), stats

    def _mix(self, x: Tensor, indices: Tensor, gates: Tensor, partial: bool) -> Tensor:
        """Return each token's sum of its experts' outputs."""
        packs: list[MLPPart] = list(self.experts)  # pyright: ignore[reportAssignmentType]
        kernel = self.kernel.chosen(packs, x, indices, self.dispatcher)
        static = self.dispatcher.local and kernel.compiles(packs, x, partial=partial)
        mix = _mix if static or not torch.compiler.is_compiling() else _mix_uncompiled
        return mix(kernel, packs, x, indices, gates, self.dispatcher, partial)

    def _draw_excluded(self, device: torch.device) -> Tensor | None:
        """Draw the excluded experts; a second pass draws too, so that all later draws agree."""
        if not self.training or not self.expert_dropout:
            return None
        remaining = self.router.selector.experts_per_token
        return draw_excluded(self.num_experts, remaining, self.expert_dropout, device)

    def _drop_overflow(
        self, routing: Routing, shape: torch.Size, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return experts and gates of the pairs that found room, and how many found none."""
        if not self.training or self.capacity_factor is None:
            return routing.indices, routing.gates, None
        rows = routing.indices.unflatten(0, (shape[0], shape[1]))
        overflow = self.overflow(rows, valid, self.num_experts, self.capacity_factor).flatten(0, 1)
        return (
            routing.indices.masked_fill(overflow, self.num_experts),
            routing.gates.masked_fill(overflow, 0.0),
            overflow.sum(),
        )

    def _shared(self, flat: Tensor) -> Tensor:
        first, *others = self.shared
        out = first(flat)
        for expert in others:
            out = out + expert(flat)
        return out if self.shared_gate is None else out * self.shared_gate(flat)


def _mix(
    kernel: ExpertKernel,
    packs: list[MLPPart],
    x: Tensor,
    indices: Tensor,
    gates: Tensor,
    dispatcher: Dispatcher,
    partial: bool,
) -> Tensor:
    return kernel.mix(packs, x, indices, gates, dispatcher, partial=partial)


# What most kernels run depends on what was selected, so a compiler would recompile for every batch;
# besides, torch's grouped product in float32 on a GPU is unknown to it. Those stay outside.
_mix_uncompiled = uncompiled(_mix)


class SharedGate(Part):
    """How much the shared experts count for a token: sigmoid(x · weightᵀ), as Qwen2-MoE has it."""

    roles = {"weight": "router"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N 1"]:
        """Return each token's gate."""
        return torch.sigmoid(F.linear(x, self.weight))
