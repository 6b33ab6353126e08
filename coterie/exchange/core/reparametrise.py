"""The same function under other settings: zero rows, neutral scales, packs joined, pairs reordered.

An export first finds settings that a foreign family can express (see `match`), then asks here for
the tensors with which a decoder of those settings computes what the given one computes.
"""

import re
from collections.abc import Callable
from itertools import count, takewhile

import torch
from torch import Tensor

from coterie.model import Decoder, DecoderSettings, parameter_roles
from coterie.model.attention import Attention
from coterie.model.attention.mla import LatentAttention
from coterie.model.position import RotaryPosition

_BLOCK = r"(?:blocks\.(\d+)|mtp\.\d+\.block)"
_EXPERT = re.compile(rf"({_BLOCK}\.feedforward)\.experts\.0\.(\w+)")
_SHARED = re.compile(rf"({_BLOCK}\.feedforward)\.shared\.0\.(\w+)")
_ATTENTION = re.compile(rf"{_BLOCK}\.attention\.(.+)")


class Reparametrised:
    """The tensors of a decoder of other settings, computed one at a time."""

    def __init__(self, decoder: Decoder, settings: DecoderSettings) -> None:
        """Prepare to express `decoder` by `settings`, which must be able to hold it."""
        self._own = decoder.state_dict()
        self._settings = decoder.settings
        self._dtype = next(decoder.parameters()).dtype
        with torch.device("meta"):
            skeleton = Decoder(settings)
        roles = parameter_roles(skeleton)
        state = skeleton.state_dict()
        self.shapes = {name: tensor.shape for name, tensor in state.items()}
        self._scales = {name for name, role in roles.items() if role == "norm"}
        self._plans = {str(layer): plan for layer, plan in enumerate(settings.plans())}
        self._further = settings.mtp_plan()
        self._order = _reordering(decoder.settings, settings)

    def read(self, name: str) -> Tensor:
        """Return the tensor of a name in the other decoder."""
        shape = self.shapes[name]
        found = self._lookup(name)
        if found is None:
            if name in self._scales:
                return torch.ones(shape, dtype=self._dtype)
            assert name.endswith("bias"), f"nothing becomes {name}"
            return torch.zeros(shape, dtype=self._dtype)
        return self._reordered(name, _padded(found, shape))

    def _lookup(self, name: str) -> Tensor | None:
        """Return our tensor of a name; several are joined where they become one."""
        if match := _EXPERT.fullmatch(name):
            return self._joint_packs(match[1], match[3])
        if match := _SHARED.fullmatch(name):
            return self._joint_shared(match[1], match[3])
        return self._own.get(name)

    def _joint_packs(self, layer: str, part: str) -> Tensor | None:
        """Return one matrix of all experts [E, out, in], narrower packs padded with zeros."""
        packs = self._listed(f"{layer}.experts", part)
        if len(packs) < 2:
            return packs[0] if packs else None
        widest = torch.Size(max(sizes) for sizes in zip(*(x.shape[1:] for x in packs), strict=True))
        return torch.cat([_padded(each, torch.Size([len(each), *widest])) for each in packs])

    def _joint_shared(self, layer: str, part: str) -> Tensor | None:
        """Return shared experts side by side: their sum is one expert of their joint width."""
        matrices = self._listed(f"{layer}.shared", part)
        if len(matrices) < 2:
            return matrices[0] if matrices else None
        if part == "down_bias":
            return torch.stack(matrices).sum(0)
        return torch.cat(matrices, dim=1 if part == "down" else 0)

    def _listed(self, where: str, part: str) -> list[Tensor]:
        names = (f"{where}.{number}.{part}" for number in count())
        return [self._own[name] for name in takewhile(self._own.__contains__, names)]

    def _reordered(self, name: str, tensor: Tensor) -> Tensor:
        """Return rows of queries and keys in the order of the other rotary layout."""
        match = _ATTENTION.fullmatch(name)
        if self._order is None or match is None:
            return tensor
        plan = self._plans.get(match[1], self._further)
        rows = _rotated_rows(plan.attention, match[2], self._settings)
        if rows is None:
            return tensor
        start, channels, offset, rotated = rows
        order = torch.arange(channels)
        order[offset : offset + rotated] = offset + self._order(rotated)
        heads = tensor[start:].unflatten(0, (-1, channels))
        return torch.cat((tensor[:start], heads[:, order].flatten(0, 1)))


def _rotated_rows(
    attention: Attention, part: str, settings: DecoderSettings
) -> tuple[int, int, int, int] | None:
    """Return which rows of a tensor the positions rotate; None: none.

    Returns:
        The row at which the heads begin, the channels of a head, the first rotated channel, and
        the number of rotated channels.
    """
    assert isinstance(settings.position, RotaryPosition)
    channels = attention.channels(settings.width)
    rotated = settings.position.rotated(channels)
    if isinstance(attention, LatentAttention):
        latents = attention.kv_rank
        if part in ("query", "query_up"):
            return 0, attention.nope_dim + channels, attention.nope_dim, rotated
        return (latents, channels, 0, rotated) if part in ("kv_down", "kv_down_bias") else None
    name = part.removesuffix(".weight").removesuffix(".bias").removesuffix("_bias")
    known = ("query", "key", "query_norm", "key_norm")
    return (0, channels, 0, rotated) if name in known else None


def _reordering(ours: DecoderSettings, theirs: DecoderSettings) -> Callable[[int], Tensor] | None:
    """Return the permutation of rotated channels to the other layout; None where they agree."""
    here, there = ours.position, theirs.position
    if not isinstance(here, RotaryPosition) or not isinstance(there, RotaryPosition):
        return None
    if here.layout == there.layout:
        return None

    def order(rotated: int) -> Tensor:
        halves = torch.arange(rotated).view(-1, 2).T.flatten()  # of pairs: first ones, second ones
        return halves if there.layout == "half" else halves.argsort()

    return order


def _padded(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return a tensor padded with zeros at the end of every dimension up to a shape."""
    if tensor.shape == shape:
        return tensor
    padding: list[int] = []
    for now, then in zip(reversed(tensor.shape), reversed(shape), strict=True):
        assert now <= then, f"{tuple(tensor.shape)} is larger than {tuple(shape)}"
        padding += [0, then - now]
    return torch.nn.functional.pad(tensor, padding)
