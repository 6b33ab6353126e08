"""The routers' choices of a rollout: recorded while texts are written, repeated in the update.

Without that, a token whose experts are nearly equal may go elsewhere in the update than where it
was written, so that its probability ratio tells of another function than the one that wrote it:
routing replay, Ma et al. 2025, arXiv:2510.11370.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.passes import Call, EagerPass
from coterie.model import Decoder, routed_layers
from coterie.model.context import ForwardContext
from coterie.model.replay import RoutingReplay


class RecordingPass(EagerPass):
    """Calls the decoder as it is, and keeps where its routers sent the tokens of each call."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._reads, self._layers = decoder, routed_in(decoder)
        self._calls: list[Tensor] = []

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        """Return the logits of the last positions."""
        routes = [RoutingReplay() for _ in self._reads.blocks]
        context = ForwardContext(
            cache=call.cache, lengths=call.lengths, router_stats=False, routes=routes
        )
        logits = self._reads(call.tokens, context=context, last=call.last).logits
        if self._layers:
            rows = call.tokens.shape[0]
            found = [routes[layer].indices for layer in self._layers]
            self._calls.append(stacked([each.view(rows, -1, each.shape[-1]) for each in found
                                        if each is not None]))  # fmt: skip
        return logits

    def take(self) -> Int[Tensor, "B T L k"] | None:
        """Return the choices of all tokens read since this was last asked; None without routers."""
        calls, self._calls = self._calls, []
        return torch.cat(calls, 1) if calls else None


def routed_in(decoder: Decoder) -> list[int]:
    """Return the routed layers of a decoder, without the modules of multi-token prediction."""
    return [layer for layer in routed_layers(decoder) if layer < len(decoder.blocks)]


def stacked(layers: list[Tensor]) -> Int[Tensor, "B T L k"]:
    """Return the choices of all layers in one int16 tensor on the host, −1 where k is smaller."""
    most = max(each.shape[-1] for each in layers)
    found = torch.full((*layers[0].shape[:2], len(layers), most), -1, dtype=torch.int16)
    for number, each in enumerate(layers):
        found[:, :, number, : each.shape[-1]] = each
    return found


def replays(
    decoder: Decoder, routes: Int[Tensor, "B T L k"], *, repeats: bool = True
) -> list[RoutingReplay]:
    """Return what lets a pass repeat recorded choices, and tell its own.

    Args:
        repeats: false: the pass routes by itself.
    """
    found = [RoutingReplay() for _ in decoder.blocks]
    parts = routed_layers(decoder)
    for number, layer in enumerate(routed_in(decoder)):
        own = routes[:, :, number].flatten(0, 1).long()
        own = own[:, : int((own >= 0).any(0).sum())]
        # Padding was never read: any expert serves, and nobody looks at the result.
        own = own.where(own >= 0, torch.arange(own.shape[1], device=own.device))
        assert own.max() <= parts[layer].num_experts
        if repeats:
            found[layer] = RoutingReplay(own, compares=True)
    return found


def agreement(
    recorded: Int[Tensor, "B T L k"], chosen: list[Int[Tensor, "N k"]]
) -> Float[Tensor, "B T"]:
    """Return the share of a token's recorded experts that a router chooses too, over layers.

    Args:
        chosen: by the routers of another pass, layer by layer.
    """
    shares = []
    for number, each in enumerate(chosen):
        own = recorded[:, :, number].flatten(0, 1)[:, : each.shape[1]]
        same = (own[:, :, None] == each[:, None, :]).any(-1)
        shares.append(same.float().mean(-1))
    return torch.stack(shares).mean(0).view(recorded.shape[:2])
