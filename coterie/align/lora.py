"""Low-rank adapters of any matrix: dense layers, attention, and experts packed as [E, out, in].

The decoder's own weights stay whole: after each step W = W₀ + s·B·A is written into them, so that
generating, evaluating, saving and exporting are those of any model. The gradient of W is turned
into those of A and B the moment it is complete, dA = s·Bᵀ·G and dB = s·G·Aᵀ, and dropped. So the
optimizer keeps moments of the adapters alone; W₀ is held besides.

A begins with orthonormal rows, B with zeros. At full rank and s = 1, A·Aᵀ = I: the first step of
plain gradient descent is that of full tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from coterie.align.settings import Lora
from coterie.foundation.errors import SettingsError, nearest
from coterie.model import Decoder, parameter_roles
from coterie.train.method import Trainable
from coterie.train.optimizer import RoleParameter
from coterie.train.roles import role_parameters


class Adapters(Trainable):
    """The adapters of a decoder, whose other parameters are frozen.

    Args:
        decoder: with the weights of step 0, or without memory.
        lora: which matrices get them, and how large they are.

    Raises:
        SettingsError: a part names no matrix of the decoder.
    """

    recordable = False

    def __init__(self, decoder: Decoder, lora: Lora) -> None:
        known = {each.name: each for each in role_parameters(decoder)}
        roles = parameter_roles(decoder)
        matrices = {n: p for n, p in decoder.named_parameters() if roles[n] in _ADAPTED}
        words = sorted({word for name in matrices for word in name.split(".")})
        for part in lora.parts:
            if part not in words:
                raise SettingsError(
                    f"align.lora.parts: no matrix of the model has “{part}” in its name; "
                    f"{nearest(part, words)}"
                )
        usual = {n for n in matrices if roles[n] == "matrix"}
        wanted = {n for n in matrices if set(lora.parts) & set(n.split("."))} or usual
        self._adapters = []
        self.parameters: list[RoleParameter] = []
        for name, parameter in decoder.named_parameters():
            fresh = name.startswith(FRESH)  # a value head has nothing to begin with
            parameter.requires_grad_(fresh or name in wanted)
            if fresh:
                self.parameters.append(known[name])
            elif name in wanted:
                adapter = _Adapter(parameter, lora)
                self._adapters.append(adapter)
                self.parameters += [
                    known[name]._replace(name=f"{name}.lora_a", tensor=adapter.a),
                    known[name]._replace(name=f"{name}.lora_b", tensor=adapter.b),
                ]

    def moved(self) -> None:
        """Write W₀ + s·B·A into the decoder."""
        for adapter in self._adapters:
            adapter.write()

    def kept(self) -> dict[str, Tensor]:
        """Return A and B of each matrix, and a head that is new."""
        return {f"lora.{each.name}.trained": each.tensor.detach() for each in self.parameters}

    def restore(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Take A and B back; the decoder has its weights from elsewhere."""
        found = self.kept()
        with torch.no_grad():
            for name, tensor in found.items():
                tensor.copy_(tensors[name])
        return set(found)


FRESH = "value."
"""Parameters that the base may lack: a value head begins anew."""
_ADAPTED = frozenset({"matrix", "router"})


class _Adapter:
    """A and B of one matrix W [*E, out, in]: A [*E, r, in], B [*E, out, r]."""

    def __init__(self, weight: nn.Parameter, lora: Lora) -> None:
        *stack, rows, columns = weight.shape
        rank = columns if lora.rank == "full" else min(lora.rank, columns)
        self._weight, self._scale = weight, lora.scale
        self._original = weight.detach().clone()
        self.a = nn.Parameter(weight.new_empty(*stack, rank, columns))
        self.b = nn.Parameter(weight.new_zeros(*stack, rows, rank))
        if not weight.is_meta:
            drawn = torch.randn(*stack, columns, rank, dtype=weight.dtype)
            with torch.no_grad():
                self.a.copy_(torch.linalg.qr(drawn).Q.mT)
        weight.register_post_accumulate_grad_hook(self._project())

    def _project(self) -> Callable[[Tensor], None]:
        def project(weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            assert gradient is not None
            with torch.no_grad():
                for own, found in (
                    (self.a, self.b.mT @ gradient),
                    (self.b, gradient @ self.a.mT),
                ):
                    found = found.mul_(self._scale)
                    own.grad = found if own.grad is None else own.grad.add_(found)

        return project

    @torch.no_grad()
    def write(self) -> None:
        self._weight.copy_(self._original + self._scale * (self.b @ self.a))
