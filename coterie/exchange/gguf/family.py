"""An architecture of GGUF files."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from coterie.exchange.core import family as core
from coterie.exchange.core.canonical import Canonical
from coterie.exchange.gguf.metadata import Metadata


def _no_extras(model: Canonical) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Family(core.Family[Metadata]):
    """One `general.architecture`, which is its name.

    Attributes:
        extras: tensors that hold settings, not weights.
        settings_in_tensors: names of such tensors.
        notices: patterns of tensors that are left out, and why.
    """

    extras: Callable[[Canonical], dict[str, Tensor]] = _no_extras
    settings_in_tensors: tuple[str, ...] = ()
    notices: Mapping[str, str] = field(default_factory=dict)

    def write(self, model: Canonical) -> core.Written[Metadata]:
        """See `core.Family.write`; the values are by full name."""
        extras = self.extras(model)
        values = {f"{self.name}.{name}": value for name, value in self.writes(model).items()}
        shapes = {**_present(model), **{name: tuple(each.shape) for name, each in extras.items()}}
        said = {"general.architecture": self.name, **values}
        return core.Written(values, Metadata(said, shapes, extras.__getitem__), extras)

    def notice(self, tensor: str) -> str | None:
        """Return why a tensor is left out; None if it is not."""
        found = (why for what, why in self.notices.items() if re.fullmatch(what, tensor))
        return next(found, None)


def _present(model: Canonical) -> dict[str, tuple[int, ...]]:
    """Return the tensors from whose presence or shape an import derives settings."""
    attention, first = model.grouped, model.plans[0].feedforward
    names = []
    if not model.settings.head.tied:
        names.append("output.weight")
    if attention.bias:
        names.append("blk.0.attn_q.bias")
    if attention.bias is True:
        names.append("blk.0.attn_output.bias")
    if attention.query_key_norm is not None:
        names.append("blk.0.attn_q_norm.weight")
    if getattr(getattr(first, "mlp", None), "bias", False):
        names.append("blk.0.ffn_gate.bias")
    if any(model.biased):
        names += [f"blk.{layer}.exp_probs_b.bias" for layer in range(len(model.plans))]
    embedding = {"token_embd.weight": (model.vocab_size, model.settings.width)}
    return {**dict.fromkeys(names, (1,)), **embedding}
