"""Activations and the optimizer's state in host memory while a GPU does not need them.

What the forward pass leaves for the backward pass goes to the host as it is made and comes back
when the gradient asks for it (Rhu et al. 2016, arXiv:1602.08124), by torch's hooks for saved
tensors. The optimizer moves some parameters at a time, whose state comes for that and goes again
(as in Ren et al. 2021, arXiv:2101.06840, but computed on the GPU). Numbers stay as they are. Copies
use pinned memory and keep to the order of the GPU's own work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.settings import Settings
from coterie.train.optimizer import Layerwise, Optimizer, OptimizerSettings, RoleParameter
from coterie.train.sketch import storage_of

_LEAST = 1 << 16  # bytes of the smallest tensor whose copy is worth a launch
_AT_ONCE = 1 << 26  # bytes of parameters that are moved together


class Offload(Settings):
    """What of a run waits in host memory; a word or a list of them is enough."""

    activations: bool = Field(
        default=False,
        description="keep what the backward pass needs in host memory until it does; steps are "
        "not recorded then, and with activation_checkpointing blocks' inputs stay on the device",
    )
    optimizer: bool = Field(
        default=False, description="keep the optimizer's state in host memory between updates"
    )

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            return value
        for word in words:
            if word not in cls.model_fields:
                raise ValueError(f"“{word}” cannot be offloaded; {nearest(word, cls.model_fields)}")
        return dict.fromkeys(words, True)

    @property
    def anything(self) -> bool:
        """Whether there is anything to move."""
        return self.activations or self.optimizer


class Built(Protocol):
    """What of training settings decides the optimizer that is built."""

    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def offload(self) -> Offload: ...


def require_elsewhere(offload: Offload, device: torch.device) -> None:
    """Refuse to move anything off a device whose memory is the host's.

    Raises:
        SettingsError: it is asked for.
    """
    if offload.anything and device.type != "cuda":
        raise SettingsError(
            f"train.offload moves tensors from a GPU's memory to the host's; {device} has none of "
            "its own.",
            hint="Leave train.offload out; train.activation_checkpointing=true and "
            "train.gradient_accumulation save memory on any device, and `coterie plan` finds what "
            "fits.",
        )


@contextlib.contextmanager
def activations_away(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Let what autograd saves inside the block wait in host memory, but for parameters.

    Whole numbers and small tensors stay where they are: they are a small part of the memory.
    """
    own = {storage_of(each)._cdata for each in parameters}

    def pack(tensor: Tensor) -> tuple[torch.device, Tensor]:
        stays = (
            not tensor.is_floating_point()
            or tensor.numel() * tensor.element_size() < _LEAST
            or storage_of(tensor)._cdata in own
        )
        return tensor.device, tensor if stays else _away(tensor)

    def unpack(packed: tuple[torch.device, Tensor]) -> Tensor:
        device, tensor = packed
        return tensor.to(device, non_blocking=True)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def _away(tensor: Tensor) -> Tensor:
    """Return a copy in host memory, pinned where it comes from a GPU."""
    return tensor.detach().to("cpu", non_blocking=True, copy=True)


def build_optimizer(train: Built, parameters: Sequence[RoleParameter]) -> Optimizer:
    """Return the optimizer of a run, its state in host memory if that is asked for.

    Raises:
        SettingsError: it names parameters that there are not.
    """
    if isinstance(train.optimizer, Layerwise):
        train.optimizer.require_matches(parameters)
    if train.offload.optimizer:
        return OffloadedOptimizer(train.optimizer, parameters)
    return train.optimizer.build(parameters)


class OffloadedOptimizer:
    """Any optimizer, built anew for some parameters at a time from the state that it left.

    Every optimizer here moves each parameter by its own gradient and state, so that cutting changes
    nothing.
    """

    def __init__(self, settings: OptimizerSettings, parameters: Sequence[RoleParameter]) -> None:
        self._settings = settings
        self.learning_rate = settings.learning_rate
        self._chunks = list(_chunks(parameters))
        self._kept: list[dict[str, Tensor]] = [{} for _ in self._chunks]

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        for number, chunk in enumerate(self._chunks):
            optimizer = self._settings.build(chunk)
            optimizer.load_state(self._kept[number])
            optimizer.step(step, multiplier)
            self._keep(number, optimizer)
        self._arrive()

    def state(self) -> dict[str, Tensor]:
        """Return everything that must be kept to go on later, by parameter name."""
        return {key: value for kept in self._kept for key, value in kept.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take a state back; return the keys that were used."""
        used: set[str] = set()
        for number, chunk in enumerate(self._chunks):
            optimizer = self._settings.build(chunk)
            used |= optimizer.load_state(state)
            self._keep(number, optimizer)
        self._arrive()
        return used

    def _keep(self, number: int, optimizer: Optimizer) -> None:
        self._kept[number] = {key: _away(value) for key, value in optimizer.state().items()}

    def _arrive(self) -> None:
        """Wait until the state is there, for whoever saves it reads it without asking the GPU."""
        if self._chunks[0][0].tensor.device.type == "cuda":
            torch.cuda.synchronize()


def _chunks(parameters: Sequence[RoleParameter]) -> Iterator[list[RoleParameter]]:
    """Yield parameters in order, as many together as `_AT_ONCE` allows."""
    chunk: list[RoleParameter] = []
    held = 0
    for each in parameters:
        size = each.tensor.numel() * each.tensor.element_size()
        if chunk and held + size > _AT_ONCE:
            yield chunk
            chunk, held = [], 0
        chunk.append(each)
        held += size
    yield chunk
