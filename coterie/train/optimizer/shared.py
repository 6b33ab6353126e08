"""An optimizer on several processes: each moves its own parts, or what it owns as a whole.

AdamW treats every number by itself, so each process moves the parts that it holds. Muon and
Adafactor need a matrix as a whole: each matrix has an owner, which holds its state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from coterie.parallel.owners import Owners
from coterie.parallel.ranks import Ranks
from coterie.parallel.shard import like, local, part_of
from coterie.train.optimizer.groups import RoleParameter


class SharedOptimizer:
    """Moves the parameters of a decoder that several processes hold.

    Args:
        build: makes an optimizer of parameters.
        parameters: as the decoder names them, and this process's parts of them.
        owned: the names of those that are moved as a whole.
        ranks: those that hold the same layers.
    """

    def __init__(
        self,
        build: Callable[[Sequence[RoleParameter]], Any],
        parameters: Sequence[tuple[RoleParameter, RoleParameter]],
        owned: frozenset[str],
        ranks: Ranks,
    ) -> None:
        whole = [pair for pair in parameters if pair[0].name in owned]
        self._elsewhere = owned
        self._wholes = {each.name: each.tensor for each, _ in parameters}
        own = [part for each, part in parameters if each.name not in owned]
        self._here = build(own) if own else None
        self._parts = [part for _, part in whole]
        costs = [_cost(each.tensor) for each, _ in whole]
        self._owners = Owners([each.tensor for each, _ in whole], costs, ranks) if whole else None
        self._owned: dict[int, RoleParameter] = {}
        if self._owners is not None:
            self._owned = {
                n: whole[n][0]._replace(tensor=nn.Parameter(values))
                for n, values in self._owners.gather(self._values()).items()
            }
        self._mine = build(list(self._owned.values())) if self._owned else None
        self.learning_rate: float = (self._here or self._mine or build([])).learning_rate

    def _values(self) -> list[Tensor]:
        return [part.tensor.detach() for part in self._parts]

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        if self._owners is not None:
            gradients = self._owners.gather([part.tensor.grad for part in self._parts])
            for number, gradient in gradients.items():
                self._owned[number].tensor.grad = gradient
            if self._mine is not None:
                self._mine.step(step, multiplier)
            for each in self._owned.values():
                each.tensor.grad = None
            self._owners.scatter({n: each.tensor.detach() for n, each in self._owned.items()})
        if self._here is not None:
            self._here.step(step, multiplier)

    def state(self) -> dict[str, Tensor]:
        """Return everything that must be kept, by parameter name.

        What belongs to parts is divided as the parameter is; what an owner holds is whole, and
        there alone.
        """
        found: dict[str, Tensor] = {} if self._mine is None else dict(self._mine.state())
        for key, value in ({} if self._here is None else self._here.state()).items():
            of = self._wholes[parameter_of(key)]
            found[key] = like(value, of) if value.shape == local(of).shape else value
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take a state back, whole or divided, after the weights; return the keys used."""
        used: set[str] = set()
        if self._here is not None:
            parts = {}
            for key, value in state.items():
                of = self._wholes.get(parameter_of(key))
                fits = of is not None and value.shape == of.shape
                parts[key] = part_of(value, of) if fits and of is not None else value
            used |= self._here.load_state(parts)
        if self._owners is not None:
            for n, values in self._owners.gather(self._values()).items():
                self._owned[n].tensor.data.copy_(values)
        if self._mine is not None:
            self._mine.load_state({key: local(value) for key, value in state.items()})
        used |= {key for key in state if parameter_of(key) in self._elsewhere}
        return used

    def moves_parts(self, parameter: str) -> bool:
        """Whether each process moves its part of a parameter by itself."""
        return parameter not in self._elsewhere

    def is_elsewhere(self, parameter: str) -> bool:
        """Whether another process moves a parameter, as a whole."""
        mine = {each.name for each in self._owned.values()}
        return parameter in self._elsewhere and parameter not in mine


def parameter_of(key: str) -> str:
    """Return the parameter that a name in an optimizer's state belongs to."""
    return key.partition(".")[2].rpartition(".")[0]


def _cost(tensor: Tensor) -> float:
    """Return about how long a matrix takes to move: products of it with itself."""
    return float(tensor.numel() * (min(tensor.shape[-2:]) if tensor.ndim > 1 else 1))
