"""The parameters that a decoder trains, with the roles by which optimizers tell them apart."""

from __future__ import annotations

from coterie.model import Decoder, parameter_roles
from coterie.train.optimizer import RoleParameter


def role_parameters(decoder: Decoder) -> list[RoleParameter]:
    """Return the trainable parameters of a decoder with their roles, in the decoder's order."""
    roles = parameter_roles(decoder)
    return [
        RoleParameter(name, roles[name], parameter)
        for name, parameter in decoder.named_parameters()
        if parameter.requires_grad
    ]
