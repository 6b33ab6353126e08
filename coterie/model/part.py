"""What every part of the decoder says about its own parameters: the role each plays.

Roles are how the outside treats parameters (initial values here, learning rates and weight decay in
training) without knowing any part by name.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, get_args

from torch import nn

Role = Literal["embedding", "table", "matrix", "head", "router", "norm", "bias"]
"""`table` is a hashed table, whose rows are seen far more rarely than those of an embedding; every
`matrix` is [..., out, in], leading dimensions holding that many separate matrices."""

ROLES: tuple[Role, ...] = get_args(Role)


class Part(nn.Module):
    """A module that names the role of each parameter it holds itself.

    Attributes:
        roles: the role of each parameter by attribute name.
        outputs: the matrices that write into the residual stream.
        initial_std: parameters whose initial spread the part's own settings give.
    """

    roles: ClassVar[Mapping[str, Role]] = {}
    outputs: ClassVar[frozenset[str]] = frozenset()
    initial_std: Mapping[str, float] = {}


def owned_parameters(root: nn.Module) -> Iterator[tuple[str, nn.Parameter, str, Part, Role]]:
    """Yield (full name, parameter, own name, part, role) for every parameter of a module.

    Raises:
        TypeError: a part did not say the role of one of its parameters.
    """
    for path, module in root.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            role = module.roles.get(name) if isinstance(module, Part) else None
            if role not in ROLES:
                raise TypeError(
                    f"{type(module).__name__} does not say the role of its parameter “{name}”; "
                    f"derive it from Part and set roles; choices: {', '.join(ROLES)}"
                )
            assert isinstance(module, Part)
            yield f"{path}.{name}" if path else name, parameter, name, module, role


def parameter_roles(decoder: nn.Module) -> dict[str, Role]:
    """Return the role of every parameter, by its name in `decoder.named_parameters()`."""
    return {full: role for full, _, _, _, role in owned_parameters(decoder)}
