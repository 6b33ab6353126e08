"""A family of foreign models: one small object per architecture, for reading and for writing.

Whether a family can express a model is not declared: what it wrote is read back and compared with
the model (see `match`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.tensor_map import Entry
from coterie.exchange.core.values import ForeignValues
from coterie.model import DecoderSettings

V = TypeVar("V", bound=ForeignValues)


def _none(model: Canonical) -> list[str]:
    return []


@dataclass(frozen=True)
class Written(Generic[V]):
    """What a file says of a model.

    Attributes:
        values: as they are written.
        reader: reads them as an import would.
        extras: tensors that hold settings instead of weights.
    """

    values: dict[str, Any]
    reader: V
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family(ABC, Generic[V]):
    """One family of foreign models; a format's own `Family` adds what its files need.

    Attributes:
        name: in the foreign file.
        title: in sentences.
        reads: from foreign values to the settings of a decoder, as plain values.
        writes: from settings to foreign values, as near as they can be.
        tensor_map: which foreign tensors hold which of a decoder of given settings.
        limits: what programs that load the family refuse although the values could say it.
    """

    name: str
    title: str
    reads: Callable[[V], dict[str, Any]]
    writes: Callable[[Canonical], dict[str, Any]]
    tensor_map: Callable[[DecoderSettings], Iterable[Entry]]
    limits: Callable[[Canonical], list[str]] = _none

    @abstractmethod
    def write(self, model: Canonical) -> Written[V]:
        """Return what a file of this family says of a model."""
