"""Filling a decoder with foreign tensors; before it is built, names and shapes are checked."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from coterie.exchange.core.tensor_map import Entry, Layout
from coterie.exchange.files import some
from coterie.exchange.imported import ExchangeError
from coterie.model import Decoder, DecoderSettings


class Source(Protocol):
    """Foreign tensors by name, read one at a time."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor that must find its place in the decoder."""
        ...

    def read(self, name: str) -> Tensor: ...


def load_decoder(
    settings: DecoderSettings,
    entries: Iterable[Entry],
    source: Source,
    *,
    path: object,
    says: str,
    dtype: torch.dtype = torch.float32,
) -> Decoder:
    """Return a decoder with foreign weights.

    Args:
        says: what the settings were read from, for messages.
        dtype: precision of the decoder; selection biases stay float32.

    Raises:
        ExchangeError: tensors are missing, left over or of another shape (all of them are named),
            or hold values that are not finite in `dtype`.
    """
    with torch.device("meta"):
        hollow = Decoder(settings).state_dict()
    chosen = [(entry, _present_layout(entry, source)) for entry in entries]
    covered = {name for entry, _ in chosen for name in entry.own}
    assert covered == set(hollow), f"the tensor map lacks {set(hollow) ^ covered}"
    if problems := list(_problems(hollow, chosen, source)):
        raise ExchangeError(f"The weights of {path} do not fit {says}:\n  " + "\n  ".join(problems))
    decoder = Decoder(settings).to(dtype)
    own = decoder.state_dict()
    with torch.no_grad():
        for entry, layout in chosen:
            absent = entry.optional and not all(name in source.shapes for name in layout.names)
            if not entry.own or absent:
                continue
            shapes = [own[name].shape for name in entry.own]
            found = layout.to_own([source.read(name) for name in layout.names], shapes)
            for name, tensor in zip(entry.own, found, strict=True):
                if not bool(own[name].copy_(tensor).isfinite().all()):
                    raise ExchangeError(
                        f"{', '.join(layout.names[:3])} of {path} hold values that are no "
                        f"numbers, or beyond {str(dtype).removeprefix('torch.')}."
                    )
    return decoder


def _present_layout(entry: Entry, source: Source) -> Layout:
    """Return the layout of which most tensors are present."""
    return max(entry.layouts, key=lambda x: sum(n in source.shapes for n in x.names) / len(x.names))


def _problems(
    hollow: Mapping[str, Tensor], chosen: list[tuple[Entry, Layout]], source: Source
) -> Iterator[str]:
    """Yield a sentence on all missing tensors, all unexpected ones, and each wrong shape."""
    wanted = {name for _, layout in chosen for name in layout.names}
    needed = {name for entry, layout in chosen if not entry.optional for name in layout.names}
    if missing := sorted(needed - set(source.shapes)):
        yield f"{len(missing)} tensors are missing: {some(missing)}"
    if unexpected := sorted(set(source.shapes) - wanted):
        yield f"{len(unexpected)} tensors are unexpected: {some(unexpected)}"
    for entry, layout in chosen:
        expected = layout.to_foreign([hollow[name] for name in entry.own])
        for name, tensor in zip(layout.names, expected, strict=True):
            shape = source.shapes.get(name, tuple(tensor.shape))
            if shape != tuple(tensor.shape):
                yield f"{name} has shape {list(shape)} instead of {list(tensor.shape)}"
