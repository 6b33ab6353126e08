"""What a GGUF file says about its model: every value checked, every problem collected.

Values that change the mathematics and that no part of the decoder computes are refused by name;
others that the architecture does not read are mentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from coterie.exchange.imported import ExchangeError, shown
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
_IDLE = frozenset({"vocab_size", "rope.scaling.finetuned", "tensor_data_layout"})

_MOST, _MOST_COUNTED = 1 << 30, 1 << 16  # beyond them a file is damaged


class Metadata:
    """The values of one architecture, with the problems found in them so far."""

    def __init__(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Tensor],
    ) -> None:
        """Take what a file says.

        Args:
            values: by full name.
            shapes: of the file's tensors, by name.
            read: returns a tensor.
        """
        self.architecture = str(values.get("general.architecture", ""))
        self.shapes = shapes
        self.read = read
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._values = values
        self._known: set[str] = set()

    def raw(self, name: str, default: Any = None) -> Any:
        """Return a number, a text or a truth value as it stands, or the default.

        One for every layer is returned only if they are all alike.
        """
        self._known.add(name)
        value = self._values.get(f"{self.architecture}.{name}", default)
        if isinstance(value, list):
            if any(isinstance(each, list) for each in value):
                self._wrong(name, value, "a single value, or one for each layer")
                return default
            if len(set(value)) > 1:
                self.refuse(f"{name} differs from layer to layer: {shown(value)}")
            value = value[0] if value else default
        return value

    def whole(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number of at least `least`, and of a size that a model can have."""
        value = self.raw(name, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= value <= _MOST:
            self._wrong(name, value, f"a whole number from {least} to {_MOST:,}")
            return least
        return value

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number of things that each need a tensor's row at least."""
        value = self.whole(name, default, least=least)
        if value > _MOST_COUNTED:
            self._wrong(name, value, f"a whole number up to {_MOST_COUNTED:,}")
            return least
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number above zero."""
        value = self.raw(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            self._wrong(name, value, "a number above 0")
            return 1.0
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a truth value; what is missing is false."""
        value = self.raw(name, False)
        if not isinstance(value, bool):
            self._wrong(name, value, "true or false")
        return value is True

    def factor(self, name: str) -> float:
        """Return a number of at least zero; what is missing is zero."""
        return self.number(name) if self.raw(name) not in (None, 0) else 0.0

    def has(self, tensor: str) -> bool:
        """Whether the file holds a tensor."""
        return tensor in self.shapes

    def refuse(self, problem: str) -> None:
        """Add a problem; all of them are reported together."""
        self.problems.append(problem)

    def finish(self, source: object) -> None:
        """Look at the values nobody asked for, and report all problems.

        Raises:
            ExchangeError: there are any.
        """
        before = f"{self.architecture}."
        for full, value in self._values.items():
            name = full.removeprefix(before)
            if not full.startswith(before) or name in self._known | _IDLE or not value:
                continue
            if name in _REFUSED:
                self.refuse(f"{name} is {shown(value)}, which no part of the decoder computes")
            else:
                self.notes.append(f"{printable(full, keep='')} is not read")
        if self.problems:
            raise ExchangeError(
                f"{source} holds a model that cannot be expressed here:\n  "
                + "\n  ".join(self.problems)
            )

    def _wrong(self, name: str, value: Any, expected: str) -> None:
        said = "is missing" if value is None else f"is {shown(value)}"
        self.refuse(f"{self.architecture}.{name} {said}; it must be {expected}")
