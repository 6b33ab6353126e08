"""A decoder divided by DeepSpeed: ZeRO stages 1 to 3, with or without a home on the CPU.

DeepSpeed's engine sums gradients, clips, moves and keeps the parts; what a step must know of the
whole batch is asked of the other processes as ever. A weight that no token of a process came to has
a gradient of zeros, so that all processes send the same buckets. Stages 1 and 2 leave weights whole
on every process. Stage 3 divides them: those of a block are gathered together before it and let go
after it, whichever of them its tokens use; those outside the blocks, which the decoder reads where
DeepSpeed does not look (a tied embedding, say), are gathered after each step and stay.
Rajbhandari et al. 2020, arXiv:1910.02054; Ren et al. 2021 (offload), arXiv:2101.06840.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.errors import SettingsError
from coterie.model import Decoder, routed_layers
from coterie.model.blocks import Block
from coterie.parallel.expert import share_statistics
from coterie.parallel.together import Together


def deepspeed(device: torch.device) -> ModuleType:
    """Return DeepSpeed, told to be quiet and, on a CPU, to compile nothing.

    There it would compile its own collectives at the first start, which takes half a minute, and
    wait forever where a process was killed while it did: its lock is left. They gain nothing here.

    Raises:
        SettingsError: it is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")  # which a launcher need not say on a CPU
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    try:
        found = importlib.import_module("deepspeed")
    except ImportError as error:
        raise SettingsError(
            f"parallel.deepspeed needs DeepSpeed, which cannot be loaded here: {error}.",
            hint='pip install "coterie[deepspeed]"',
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # its import has set another
    if device.type == "cpu":
        importlib.import_module("deepspeed.ops").__dict__["__compatible_ops__"] = {}
    return found


class Zero(Together):
    """One decoder on several processes, divided by DeepSpeed.

    Attributes:
        engine: DeepSpeed's, once `start` was called.
        divides: whether weights are divided too (stage 3).
    """

    engine: Any
    divides = False

    def start(self, config: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Let DeepSpeed divide the decoder and what moves it."""
        library = deepspeed(torch.device(self.mesh.whole.device_type))
        self.divides = config["zero_optimization"]["stage"] == 3
        if self.divides:
            _utilities().set_z3_leaf_modules(self.decoder, [Block])
        else:
            for part in routed_layers(self.decoder).values():
                part.register_forward_hook(_touched)
        self.engine, *_ = library.initialize(
            model=self.decoder, optimizer=optimizer, config=config, dist_init_required=False
        )
        self._begin(optimizer)
        if self.divides:
            every: list[Any] = [*self.decoder.parameters()]
            for parameter in every:
                if not (hasattr(parameter, "ds_z3_leaf_module") or parameter.ds_persist):
                    parameter.ds_persist = True
                    self.held.persistent_parameters.append(parameter)
            self._gather_lasting()

    def _gather_lasting(self) -> None:
        """Gather what stays: what is outside the blocks, and what DeepSpeed finds small."""
        lasting = self.held.persistent_parameters
        lasting[0].all_gather(lasting)

    @contextlib.contextmanager
    def whole(self, *, written: bool = False) -> Iterator[None]:
        """Let the decoder hold all weights whole, on all processes; keep what is written there."""
        if not self.divides:
            yield
            return
        zero = importlib.import_module("deepspeed.runtime.zero")
        everything = list(self.decoder.parameters())
        with zero.GatheredParameters(everything, modifier_rank=0 if written else None):
            yield
        self._gather_lasting()

    def _begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Give each piece of DeepSpeed's moments of zeros, before the first step.

        Else it links parameters with moments at the first group's first step, when the other
        groups have none.
        """
        held = self.held
        name = "fp32_partitioned_groups_flat" if self.divides else "single_partition_of_fp32_groups"
        for piece in getattr(held, name):
            optimizer.state[piece] = {
                "step": torch.zeros((), device=piece.device),
                "exp_avg": torch.zeros_like(piece),
                "exp_avg_sq": torch.zeros_like(piece),
            }
        if not self.divides:
            held._lazy_init_hp_params_optimizer_state()

    @property
    def held(self) -> Any:
        """What DeepSpeed made of the optimizer."""
        return self.engine.optimizer

    @property
    def joins_anew(self) -> bool:
        """False: DeepSpeed keeps groups of its own."""
        return False

    def _apply(self, decoder: Decoder) -> None:  # no pipeline
        share_statistics(decoder, self.mesh.batch)
        self.decoder = decoder

    def before(self, *, last: bool) -> None:
        """Prepare for a micro-batch."""
        self.held.clear_backward_seen_flag()
        self.engine.set_gradient_accumulation_boundary(last)
        self._last = last

    def backward(self, loss: Tensor) -> None:
        """Add up gradients; DeepSpeed divides them by the processes, which is undone here."""
        loss = loss * self.mesh.readers
        runtime = importlib.import_module("deepspeed.runtime.utils")
        runtime.register_output_backward_hooks(loss, self.engine._backward_prologue)
        self.engine.backward(loss, scale_wrt_gas=False)
        if not self._last:
            self.engine.step()  # counts the micro-batch

    def norm(self) -> Tensor:
        """Return the norm of all gradients together; infinite where one is not finite."""
        held = self.held
        norms = held._get_norm_groups() if self.divides else [held.scaled_global_norm()]
        every = torch.stack([torch.as_tensor(norm) for norm in norms])
        return every.norm().where((every >= 0).all(), torch.inf)

    def gradient(self, parameter: Tensor) -> Tensor:
        """Return the gradient of a parameter whole; all processes ask at once."""
        if self.divides:
            return self.held.get_fp32_grad_for_param(parameter)  # type: ignore[no-any-return]
        return parameter.get_full_hp_grad()  # type: ignore[operator, no-any-return]

    def moment(self, parameter: Tensor, key: str) -> Tensor:
        """Return a moment of a parameter whole; all processes ask at once."""
        found = _utilities().safe_get_full_optimizer_state(parameter, key)
        return found if self.divides else found.view(parameter.shape)  # type: ignore[no-any-return]

    def set_moment(self, parameter: Tensor, key: str, value: Tensor) -> None:
        """Put whole values into a moment."""
        if not self.divides:
            _utilities().safe_set_full_optimizer_state(parameter, value, key)
            return
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]  # the last is filled up
        every = F.pad(value.flatten(), (0, size * self.ranks.world - value.numel()))
        own = every.split(size)[self.ranks.rank]
        _utilities().safe_set_local_optimizer_state(parameter, own, key)

    def shared(
        self, whole: Callable[[str], Tensor], names: Iterable[str]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the names that this process is to keep, with values that all of them make."""
        for place, name in enumerate(names):
            value = whole(name)
            if place % self.ranks.world == self.ranks.rank:
                yield name, value


def _utilities() -> Any:
    return importlib.import_module("deepspeed.utils")


class _Touch(torch.autograd.Function):
    """Returns what it is given; going back, gives further tensors gradients of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Tensor) -> Tensor:
        ctx.like = [(each.shape, each.dtype, each.device) for each in others]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        zeros = (torch.zeros(s, dtype=t, device=d) for s, t, d in ctx.like)
        return gradients[0], *zeros


def _touched(part: nn.Module, given: Any, found: tuple[Tensor, Any]) -> Any:
    if not torch.is_grad_enabled():
        return None
    return _Touch.apply(found[0], *part.parameters()), found[1]
