"""What an architecture of GGUF is: one small object, used for reading and for writing.

As with Hugging Face families, whether an architecture can express a model is not told by it: what
it wrote is read back and compared with the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.huggingface.plain import Plain
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings


def _no_limits(plain: Plain) -> list[str]:
    return []


def _no_extras(plain: Plain) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: in the file.
        title: in sentences.
        reads: from what a file says to settings, as plain values.
        writes: from settings to what a file says, as near as it can be.
        rules: which tensors hold which of a decoder of given settings.
        limits: what llama.cpp refuses although the values could say it.
        extras: tensors that hold settings, not weights.
        settings_in_tensors: names of such tensors.
        notices: patterns of tensors that are left out, and why.
    """

    name: str
    title: str
    reads: Callable[[Metadata], dict[str, Any]]
    writes: Callable[[Plain], dict[str, Any]]
    rules: Callable[[DecoderSettings], Iterable[Rule]]
    limits: Callable[[Plain], list[str]] = _no_limits
    extras: Callable[[Plain], dict[str, Tensor]] = _no_extras
    settings_in_tensors: tuple[str, ...] = ()
    notices: Mapping[str, str] = field(default_factory=dict)

    def notice(self, tensor: str) -> str | None:
        """Return why a tensor is left out; None if it is not."""
        found = (why for what, why in self.notices.items() if re.fullmatch(what, tensor))
        return next(found, None)
