"""Sequence parallelism: between divided matrices, each process keeps a part of every row's tokens.

Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2. Norms, gates and sums of the residual
stream work token by token, so processes that divide matrices need not all compute all of them: a
region gathers the tokens where it begins and scatters its sum where it ends, which sends as much as
one sum does. A mixture of experts routes all tokens on every process, so that they agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from coterie.model import Decoder
from coterie.model.experts import MixtureOfExpertsPart
from coterie.parallel.cut import computes_with, entering, leaving

_OWN = Shard(1)  # tokens of [B, T, D]


class Stream:
    """The residual stream of a decoder's blocks, divided along its rows.

    The stream stays whole in evaluation and generation, which keep nothing for a backward pass and
    may be watched, and where the processes do not divide rows evenly.

    Args:
        decoder: whose blocks; all of them are here.
        mesh: of the processes that compute the same tokens.
    """

    def __init__(self, decoder: Decoder, mesh: DeviceMesh) -> None:
        self._mesh, self._divided = mesh, False
        self._regions: set[int] = set()
        blocks = list(decoder.blocks)
        blocks[0].register_forward_pre_hook(self._begin)
        for block in blocks:
            for module in (block.attention_norm, block.feedforward_norm, block.block_layout):
                if isinstance(module, nn.Module):
                    computes_with(module, dict.fromkeys(module._parameters, self._common))
            feed = block.feedforward
            if isinstance(feed, MixtureOfExpertsPart):
                feed.register_forward_pre_hook(self._before_experts)
                feed.register_forward_hook(self._scatter)
                self._regions.add(id(block.attention))
            else:
                assert isinstance(feed, nn.Module)
                self._regions |= {id(block.attention), *map(id, feed.children())}
        blocks[-1].register_forward_hook(self._end)

    def ends_of(self, module: nn.Module) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Return what a region of divided matrices does with what goes in and what comes out."""
        divides = id(module) in self._regions

        def inwards(x: Tensor) -> Tensor:
            if divides and self._divided:
                return self._moved(x, _OWN, Replicate(), Partial())
            return entering(x, self._mesh)

        def outwards(x: Tensor) -> Tensor:
            if divides and self._divided:
                return self._moved(x, Partial(), _OWN, _OWN)
            return leaving(x, self._mesh)

        return inwards, outwards

    def _moved(self, x: Tensor, held: Placement, wanted: Placement, gradient: Placement) -> Tensor:
        here = DTensor.from_local(x, self._mesh, [held], run_check=False)
        return here.redistribute(placements=[wanted]).to_local(grad_placements=[gradient])

    def _own(self, x: Tensor) -> Tensor:
        """Return this process's tokens of what is whole on each, and so is its gradient."""
        return self._moved(x, Replicate(), _OWN, _OWN) if self._divided else x

    def _whole(self, x: Tensor) -> Tensor:
        """Return all tokens; each process knows the whole gradient of them."""
        return self._moved(x, _OWN, Replicate(), Replicate()) if self._divided else x

    def _common(self, parameter: Tensor) -> Tensor:
        """Return a parameter that each process computes its own tokens with."""
        return entering(parameter, self._mesh) if self._divided else parameter

    def _begin(self, first: nn.Module, args: Any) -> Any:
        x, context = args
        usual = first.training and not context.observers
        self._divided = usual and x.shape[1] % self._mesh.size() == 0
        return self._own(x), context

    def _end(self, _: nn.Module, args: Any, output: Any) -> Any:
        hidden, stats = output
        return self._whole(hidden), stats

    def _before_experts(self, _: nn.Module, args: Any) -> Any:
        return self._whole(args[0]), *args[1:]

    def _scatter(self, _: nn.Module, args: Any, output: Any) -> Any:
        update, stats = output
        return self._own(update), stats
