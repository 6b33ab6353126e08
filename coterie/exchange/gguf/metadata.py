"""Reading the values of a GGUF file on its model (see `core.values`)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor

from coterie.exchange.core.values import ForeignValues
from coterie.exchange.imported import shown
from coterie.foundation.printable import printable

_REFUSED = frozenset({
    "attention.clamp_kqv", "attention.max_alibi_bias", "attention.output_scale", "attention.scale",
    "attention.sliding_window", "attention.temperature_length", "attention.temperature_scale",
    "attn_logit_softcapping", "embedding_scale", "expert_group_scale", "experts_per_group",
    "final_logit_softcapping", "interleave_moe_layer_step", "logit_scale", "moe_every_n_layers",
    "residual_scale", "rope.dimension_sections", "rope.scaling.alpha",
    "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor", "router_logit_softcapping",
    "swiglu_clamp_exp", "swiglu_clamp_shexp", "swin_norm", "use_parallel_residual",
})  # fmt: skip
_IGNORED = frozenset({"vocab_size", "rope.scaling.finetuned", "tensor_data_layout"})


class Metadata(ForeignValues):
    """The values of one architecture, by their names without it."""

    refused: ClassVar = _REFUSED
    ignored: ClassVar = _IGNORED

    def __init__(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Tensor],
    ) -> None:
        """Take the values of a file."""
        super().__init__()
        self.architecture = str(values.get("general.architecture", ""))
        self.shapes = shapes
        self.read = read
        self._values = values

    def raw(self, name: str) -> Any:
        """Return a value unchecked; a list with one for every layer must hold equal values."""
        self._read.add(name)
        value = self._values.get(f"{self.architecture}.{name}")
        if isinstance(value, list):
            if any(isinstance(each, list) for each in value):
                self.wrong(name, value, "a single value, or one for each layer")
                return None
            if len(set(value)) > 1:
                self.refuse(f"{name} differs from layer to layer: {shown(value)}")
            value = value[0] if value else None
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number above zero."""
        value = self._or_default(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            self.wrong(name, value, "a number above 0")
            return 1.0
        return float(value)

    def factor(self, name: str) -> float:
        """Return a number of at least zero; what is missing is zero."""
        return self.number(name) if self.raw(name) not in (None, 0) else 0.0

    def has(self, tensor: str) -> bool:
        return tensor in self.shapes

    def wrong(self, name: str, value: Any, expected: str) -> None:
        """See `ForeignValues.wrong`; the message has the full name."""
        super().wrong(f"{self.architecture}.{name}", value, expected)

    def _given(self) -> Iterator[tuple[str, Any]]:
        prefix = f"{self.architecture}."
        for full, value in self._values.items():
            if full.startswith(prefix):
                yield full.removeprefix(prefix), value

    def _unread(self, name: str) -> str:
        return f"{printable(f'{self.architecture}.{name}', keep='')} is not read"
