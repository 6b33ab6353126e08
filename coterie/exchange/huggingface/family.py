"""A family of Hugging Face checkpoints."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.exchange.core import family as core
from coterie.exchange.core.canonical import Canonical
from coterie.exchange.huggingface.config import Config

_IDLE = (r".*\.rotary_emb\.inv_freq",)


@dataclass(frozen=True, kw_only=True)
class Family(core.Family[Config]):
    """One `model_type` of config.json, which is its name.

    Attributes:
        architecture: the class that `transformers` builds.
        prefix: what the names of all tensors but the head's begin with.
        defaults: what config.json means where it is silent.
        idle: patterns of tensors that hold no weights of the model.
        mtp: what config.json calls the number of MTP modules, which are the layers after the last
            one and may be absent; empty: the family has none.
        aliases: other names of values in config.json, and the names meant.
        head: the head's tensor and the embedding's, which may both be there when they are tied.
    """

    architecture: str
    defaults: Mapping[str, Any]
    prefix: str = "model."
    idle: tuple[str, ...] = ()
    mtp: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    head: tuple[str, str] = ("lm_head.weight", "model.embed_tokens.weight")

    def write(self, model: Canonical) -> core.Written[Config]:
        values = self.writes(model)
        return core.Written(values, Config(values, self.defaults))

    def is_idle(self, tensor: str) -> bool:
        """Whether a foreign tensor holds no weights."""
        return any(re.fullmatch(pattern, tensor) for pattern in (*_IDLE, *self.idle))

    def layer(self, tensor: str) -> int:
        """Return the number of the layer that a foreign tensor belongs to; −1: to none."""
        found = re.match(re.escape(self.prefix) + r"(?:layers|h)\.(\d+)\.", tensor)
        return int(found[1]) if found else -1
