"""Muon: momentum whose update is orthogonalised, over stacks of equal-shaped matrices.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the learning-rate scale is
the original one, sqrt(max(1, rows / columns)). `torch.optim.Muon` goes matrix by matrix in
bfloat16; here all matrices of one shape go through batched products together, in float32 on the
CPU (where bfloat16 is slower) and in bfloat16 on a GPU. A packed tensor [experts, out, in] is that
many matrices: each expert is orthogonalised by itself.

Matrices inside the decoder are Muon's; embeddings, head, router, norms and biases are AdamW's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.train.optimizer.adamw import AdamW, AdamWOptimizer
from coterie.train.optimizer.groups import Layerwise, RoleParameter
from coterie.train.optimizer.orthogonalise import (
    Coefficients,
    cushioned,
    iteration_flops,
    newton_schulz,
    orthogonalise,
    polar_express,
)

_PREFIX = "muon"
MATRIX = "matrix"


class Muon(Layerwise):
    """Muon for the matrices inside the decoder, AdamW (`others`) for everything else."""

    kind: Literal["muon"] = "muon"
    learning_rate: float = Field(default=0.02, gt=0, description="peak learning rate of matrices")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Nesterov momentum")
    momentum_start: float = Field(default=0.85, ge=0, lt=1, description="momentum of step 0 ...")
    momentum_warmup: int = Field(
        default=0, ge=0, description="... if it rises linearly over so many steps"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="of matrices")
    iterations: int = Field(default=5, ge=1, le=20, description="orthogonalising steps")
    every: int = Field(
        default=1, ge=1, le=16, description="steps between updates of matrices, as much larger"
    )
    polynomial: Literal["polar_express", "newton_schulz"] = Field(
        default="polar_express", description="what each orthogonalising iteration applies"
    )
    safety: float = Field(
        default=1.02, ge=1, description="what matrices are divided by, times their norm"
    )
    others: AdamW = Field(
        default=AdamW(learning_rate=0.01, weight_decay=0.0, epsilon=1e-10),
        description="optimizer of embeddings, head, router, norms and biases",
    )

    def build(self, parameters: Sequence[RoleParameter]) -> MuonOptimizer:
        """Return the optimizer of these parameters."""
        return MuonOptimizer(parameters, self)

    @property
    def of_others(self) -> AdamW:
        """The optimizer of all but matrices, with the factors of rates that stand here too."""
        others = self.others
        return others.model_copy(
            update={
                "layer_decay": self.layer_decay * others.layer_decay,
                "rate_multipliers": {**self.rate_multipliers, **others.rate_multipliers},
            }
        )

    def require_matches(self, parameters: Iterable[RoleParameter]) -> None:
        """Make sure that each pattern matches a name, here and among the others."""
        parameters = list(parameters)
        super().require_matches(parameters)
        self.others.require_matches(split_matrices(parameters)[1])

    def moves_whole(self, parameter: RoleParameter) -> bool:
        """Whether a parameter is a matrix, which is orthogonalised as one."""
        return bool(split_matrices([parameter])[0])

    def state_bytes(self, parameters: Sequence[RoleParameter]) -> int:
        """Return the memory of matrices' momentum and the others' moments, in bytes."""
        matrices, others = split_matrices(parameters)
        return 4 * sum(p.tensor.numel() for p in matrices) + self.others.state_bytes(others)

    def flops(self, parameters: Sequence[RoleParameter]) -> float:
        """Return the operations of the matrix products of one step, on average."""
        matrices, _ = split_matrices(parameters)
        shapes = [p.tensor.shape for p in matrices]
        update = sum(
            shape[:-2].numel() * iteration_flops(shape[-2], shape[-1], self.iterations)
            for shape in shapes
        )
        return update / self.every

    def momentum_at(self, step: int) -> float:
        """Return the momentum of a step, counted from 0."""
        if step >= self.momentum_warmup:
            return self.momentum
        rise = (self.momentum - self.momentum_start) * step / self.momentum_warmup
        return self.momentum_start + rise

    def coefficients(self, dtype: torch.dtype = torch.float32) -> tuple[Coefficients, ...]:
        """Return the polynomial of each orthogonalising step, to be computed in a type."""
        if self.polynomial == "newton_schulz":
            return newton_schulz(self.iterations)
        polynomials = polar_express(self.iterations)
        return polynomials if dtype.itemsize >= 4 else cushioned(polynomials)


def split_matrices(
    parameters: Sequence[RoleParameter],
) -> tuple[list[RoleParameter], list[RoleParameter]]:
    """Return the parameters that are Muon's and those that are not."""
    matrices = [p for p in parameters if p.role == MATRIX and p.tensor.ndim >= 2]
    names = {p.name for p in matrices}
    return matrices, [p for p in parameters if p.name not in names]


class MuonOptimizer:
    """Muon and AdamW, each over the parameters that suit it."""

    def __init__(self, parameters: Sequence[RoleParameter], settings: Muon) -> None:
        matrices, others = split_matrices(parameters)
        self.learning_rate = settings.learning_rate
        self._settings = settings
        alike: dict[tuple[int, int, float], list[RoleParameter]] = defaultdict(list)
        for parameter in matrices:
            rows, columns = parameter.tensor.shape[-2:]
            alike[rows, columns, settings.factor(parameter)].append(parameter)
        self._stacks = [
            _Stack(members, settings, factor) for (*_, factor), members in alike.items()
        ]
        self._others = AdamWOptimizer(others, settings.of_others) if others else None

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        settings, momentum = self._settings, self._settings.momentum_at(step)
        moves = (step + 1) % settings.every == 0
        for stack in self._stacks:
            lookahead = stack.observe(momentum)
            if moves:
                rate = settings.learning_rate * stack.factor
                stack.move(lookahead, rate * multiplier * settings.every)
        if self._others is not None:
            self._others.step(step, multiplier)

    def state(self) -> dict[str, Tensor]:
        """Return momentum and moments by parameter name."""
        state = self._others.state() if self._others is not None else {}
        for stack in self._stacks:
            state.update(stack.state())
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take momentum and moments back; return the keys that were used."""
        used = self._others.load_state(state) if self._others is not None else set()
        for stack in self._stacks:
            used |= stack.load_state(state)
        return used


class _Stack:
    """All matrices of one shape and rate with their momentum, [N, rows, columns]."""

    def __init__(
        self, members: Sequence[RoleParameter], settings: Muon, factor: float = 1.0
    ) -> None:
        self.factor = factor
        first = members[0].tensor
        self._names = [member.name for member in members]
        self._tensors: list[Tensor] = [member.tensor for member in members]
        self._shape = first.shape[-2:]
        self._counts = [t.numel() // self._shape.numel() for t in self._tensors]
        self._momentum = torch.zeros(
            sum(self._counts), *self._shape, device=first.device, dtype=torch.float32
        )
        self._weight_decay = settings.weight_decay
        self._safety = settings.safety
        rows, columns = self._shape
        self._scale = max(1.0, rows / columns) ** 0.5
        # bfloat16 products are slower than float32 on CPUs without matrix units for them.
        self._dtype = torch.bfloat16 if first.device.type == "cuda" else torch.float32
        self._coefficients = settings.coefficients(self._dtype)

    @torch.no_grad()
    def observe(self, momentum: float) -> Float[Tensor, "N rows columns"]:
        """Take the gradients into the momentum; return the direction before orthogonalising."""
        gradients = self._gather()
        self._momentum.lerp_(gradients, 1.0 - momentum)
        return gradients.lerp_(self._momentum, momentum)  # Nesterov's form

    @torch.no_grad()
    def move(self, lookahead: Float[Tensor, "N rows columns"], learning_rate: float) -> None:
        """Move every matrix of the stack along its direction, orthogonalised."""
        updates = orthogonalise(lookahead.to(self._dtype), self._coefficients, safety=self._safety)
        if self._weight_decay:
            torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
                self._tensors, 1.0 - learning_rate * self._weight_decay
            )
        shaped = [
            update.view(tensor.shape).to(tensor.dtype)
            for update, tensor in zip(self._split(updates), self._tensors, strict=True)
        ]
        torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
            self._tensors, shaped, alpha=-learning_rate * self._scale
        )

    def _gather(self) -> Float[Tensor, "N rows columns"]:
        """Return a fresh copy of all gradients; a parameter without one counts as zero."""
        return torch.cat(
            [
                torch.zeros(count, *self._shape, device=tensor.device)
                if tensor.grad is None
                else tensor.grad.reshape(-1, *self._shape).float()
                for tensor, count in zip(self._tensors, self._counts, strict=True)
            ]
        )

    def _split(self, stacked: Float[Tensor, "N rows columns"]) -> tuple[Tensor, ...]:
        return stacked.contiguous().split(self._counts)

    def state(self) -> dict[str, Tensor]:
        """Return each parameter's momentum, in the parameter's own shape."""
        return {
            f"{_PREFIX}.{name}.momentum": part.view(tensor.shape)
            for name, tensor, part in zip(
                self._names, self._tensors, self._split(self._momentum), strict=True
            )
        }

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take the momentum back; return the keys that were used."""
        used: set[str] = set()
        for key, part in self.state().items():
            if key in state:
                part.copy_(state[key])
                used.add(key)
        return used
