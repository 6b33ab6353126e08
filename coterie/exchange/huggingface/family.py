"""What a family of foreign models is: one small object, used for reading and for writing.

`reads` turns a configuration into settings of the decoder, `writes` does the reverse as far as it
can, `rules` is the table of tensors. Whether a family can express a model is not told by it: what
it wrote is read back and compared with the model (see `fit`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.plain import Plain
from coterie.exchange.huggingface.rules import Rule
from coterie.model import DecoderSettings

_IDLE = (r".*\.rotary_emb\.inv_freq",)


def _no_limits(plain: Plain) -> list[str]:
    return []


@dataclass(frozen=True)
class Family:
    """One family of foreign models.

    Attributes:
        model_type: its name in config.json.
        title: its name in sentences.
        architecture: the class that `transformers` builds.
        prefix: what the names of all tensors but the head's begin with.
        defaults: what config.json means where it is silent.
        reads: from a configuration to settings, as plain values.
        writes: from settings to a configuration, as near as it can be.
        rules: which tensors hold which of a decoder of given settings.
        limits: what the family's own code refuses although the configuration could say it.
        idle: patterns of tensors that hold no weights of the model.
        ahead: whether layers after the last one predict further tokens and may be left out.
        aliases: other names of values in config.json, and the names meant.
        head: the head's tensor and the embedding's, which may both be there when they are tied.
    """

    model_type: str
    title: str
    architecture: str
    prefix: str
    defaults: Mapping[str, Any]
    reads: Callable[[Config], dict[str, Any]]
    writes: Callable[[Plain], dict[str, Any]]
    rules: Callable[[DecoderSettings], Iterable[Rule]]
    limits: Callable[[Plain], list[str]] = _no_limits
    idle: tuple[str, ...] = ()
    ahead: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    head: tuple[str, str] = ("lm_head.weight", "model.embed_tokens.weight")

    def is_idle(self, name: str) -> bool:
        """Whether a foreign tensor holds no weights."""
        return any(re.fullmatch(pattern, name) for pattern in (*_IDLE, *self.idle))

    def layer(self, name: str) -> int:
        """Return the number of the layer that a foreign tensor belongs to; −1: to none."""
        match = re.match(re.escape(self.prefix) + r"(?:layers|h)\.(\d+)\.", name)
        return int(match[1]) if match else -1
