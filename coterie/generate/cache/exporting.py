"""What a cache holds of one text, as tensors to be saved, and a cache filled with them again."""

from collections.abc import Iterator

import torch
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.cache.stack import CacheStack, InPlaceCache
from coterie.generate.cache.summaries import SummaryLayerCache


def check_exportable(cache: CacheStack) -> None:
    """Refuse a cache, empty or not, that `exported` cannot take.

    Raises:
        UserError: a layer does not keep every position in its place.
    """
    if any(isinstance(layer, SummaryLayerCache) for layer in cache.layers):
        raise UserError(
            "The cache of this model cannot be saved: some of its layers keep summaries.",
            hint="Leave --session out: a text of this model is written in one go.",
        )
    if not all(isinstance(layer, InPlaceCache) for layer in cache.layers):
        raise UserError(
            "This cache cannot be saved: a session needs every position in its place.",
            hint="Use cache=full, or cache=spilled where no layer has a window.",
        )


def exported(cache: CacheStack) -> dict[str, Tensor]:
    """Return what a cache of one text holds, by name, where it lies.

    Raises:
        UserError: a layer does not keep every position in its place.
    """
    check_exportable(cache)
    found = {f"state.{name}": tensor for name, tensor in cache.state.items()}
    for number, layer in enumerate(cache.layers):
        assert isinstance(layer, InPlaceCache)
        keys, values = layer.memory(0)
        found[f"{number}.keys"] = keys[:, :, : cache.length]
        found[f"{number}.values"] = values[:, :, : cache.length]
    return found


def restore(cache: CacheStack, tokens: list[int], tensors: dict[str, Tensor]) -> None:
    """Fill an empty cache with what another held of one text."""
    device = torch.device("cpu")
    for number, layer in enumerate(cache.layers):
        keys, values = tensors.pop(f"{number}.keys"), tensors.pop(f"{number}.values")
        layer.append(keys, values)
        device = keys.device
    cache.extend(torch.tensor([tokens], device=device))
    cache.state = dict(_states(tensors))


def _states(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if name.startswith("state."):
            yield name.removeprefix("state."), tensor
