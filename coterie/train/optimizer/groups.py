"""Which parameter is treated how: groups of parameters by their role and place in the decoder.

The decoder says the role of each parameter; settings give a learning rate and a weight decay to
roles, and factors of the rate to layers and names. A role that there is not, and a pattern that
matches no name, is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple, Protocol, TypeVar

from pydantic import AfterValidator, Field
from torch import nn

from coterie.foundation.errors import SettingsError, nearest
from coterie.foundation.settings import Settings
from coterie.model.part import ROLES

Roles = TypeVar("Roles", bound=Iterable[str])


class RoleParameter(NamedTuple):
    """A trainable tensor with its name in the decoder, its role, and the layers up to the head."""

    name: str
    role: str
    tensor: nn.Parameter
    above: int = 0


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


class Layerwise(Settings):
    """Learning rates that differ by layer: Clark et al. 2020, arXiv:2003.10555, and by name."""

    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor of the rate for each layer from the head, whose is 1, downwards",
    )
    rate_multipliers: dict[str, float] = Field(
        default={},
        description="factors of the rate of parameters whose names match, e.g. "
        '{"blocks.0.*": 0.1}; 0 holds them still',
    )

    def moves_whole(self, parameter: RoleParameter) -> bool:
        """Whether an update needs all numbers of a parameter at once, not each by itself."""
        return True

    def factor(self, parameter: RoleParameter) -> float:
        """Return what a parameter's peak rate is multiplied by."""
        matching = (
            factor
            for pattern, factor in self.rate_multipliers.items()
            if fnmatchcase(parameter.name, pattern)
        )
        return math.prod(matching, start=self.layer_decay**parameter.above)

    def require_matches(self, parameters: Iterable[RoleParameter]) -> None:
        """Make sure that each pattern matches a name.

        Raises:
            SettingsError: one matches none.
        """
        names = [each.name for each in parameters]
        for pattern in self.rate_multipliers:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise SettingsError(
                    f"No parameter's name matches “{pattern}”, which "
                    f"train.optimizer.rate_multipliers names; {nearest(pattern, names)}"
                )


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
    def factor(self, parameter: RoleParameter) -> float: ...


def group_by_role(parameters: Iterable[RoleParameter], given: Rates) -> list[Group]:
    """Return groups of parameters with equal learning rate and weight decay, in a fixed order."""
    groups: dict[tuple[float, float], Group] = {}
    for parameter in parameters:
        rate = given.learning_rates.get(parameter.role, given.learning_rate)
        rate *= given.factor(parameter)
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
