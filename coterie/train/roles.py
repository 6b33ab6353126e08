"""The parameters that a decoder trains, with the roles by which optimizers tell them apart."""

from __future__ import annotations

from coterie.model import Decoder, parameter_roles
from coterie.train.optimizer import RoleParameter


def role_parameters(decoder: Decoder) -> list[RoleParameter]:
    """Return the trainable parameters of a decoder with their roles, in the decoder's order.

    What comes before the blocks lies below them all; what comes after them belongs to the head.
    """
    roles, layers = parameter_roles(decoder), len(decoder.blocks)
    found, above = [], layers + 1
    for name, parameter in decoder.named_parameters():
        first, _, rest = name.partition(".")
        if first == "blocks":
            above = layers - int(rest.partition(".")[0])
        elif above <= layers:
            above = 0
        if parameter.requires_grad:
            found.append(RoleParameter(name, roles[name], parameter, above))
    return found
