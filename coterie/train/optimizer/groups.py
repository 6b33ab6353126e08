"""Which parameter is treated how: groups of parameters by the role they play in the decoder.

The decoder says the role of each parameter; settings give a learning rate and a weight decay to
roles. A role that the decoder does not know is an error, not a pattern that silently matches none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol, TypeVar

from pydantic import AfterValidator, Field
from torch import nn

from coterie.foundation.errors import nearest
from coterie.model.part import ROLES

Roles = TypeVar("Roles", bound=Iterable[str])


class RoleParameter(NamedTuple):
    """A trainable tensor with its name in the decoder and the role it plays there."""

    name: str
    role: str
    tensor: nn.Parameter


@dataclass
class Group:
    """Parameters that share a peak learning rate and a weight decay."""

    learning_rate: float
    weight_decay: float
    members: list[RoleParameter] = field(default_factory=list)

    @property
    def tensors(self) -> list[nn.Parameter]:
        """The parameters themselves."""
        return [member.tensor for member in self.members]


class Rates(Protocol):
    """What optimizers' settings say of rates.

    Attributes:
        learning_rate: the peak rate of roles that `learning_rates` does not name.
        learning_rates: the peak rate of single roles.
        weight_decay: applied to the roles in `decayed`, zero elsewhere.
        decayed: roles whose parameters are drawn towards zero.
    """

    @property
    def learning_rate(self) -> float: ...
    @property
    def learning_rates(self) -> Mapping[str, float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def decayed(self) -> Sequence[str]: ...


def group_by_role(parameters: Iterable[RoleParameter], given: Rates) -> list[Group]:
    """Return groups of parameters with equal learning rate and weight decay, in a fixed order."""
    groups: dict[tuple[float, float], Group] = {}
    for parameter in parameters:
        rate = given.learning_rates.get(parameter.role, given.learning_rate)
        decay = given.weight_decay if parameter.role in given.decayed else 0.0
        group = groups.setdefault((rate, decay), Group(rate, decay))
        group.members.append(parameter)
    return list(groups.values())


def _known(named: Roles) -> Roles:
    for role in named:
        if role not in ROLES:
            raise ValueError(f"there is no parameter role “{role}”; {nearest(role, ROLES)}")
    return named


RoleRates = Annotated[
    dict[str, float],
    AfterValidator(_known),
    Field(description="peak learning rate of single roles, e.g. {embedding: 0.01}"),
]
Decayed = Annotated[
    tuple[str, ...],
    AfterValidator(_known),
    Field(description="roles that weight decay applies to"),
]
