"""Initial values: drawn from one generator, in the order of the parameters' names in the decoder.

Everything is normal but norms (ones) and biases (zeros). The matrices that write into the residual
stream may be drawn smaller, by 1 / sqrt(2 · layers) so that the stream's size does not grow with
depth (Radford et al. 2019, GPT-2), or as zeros, so that every block begins as the identity.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.foundation.settings import Settings
from coterie.model.part import Part, Role, owned_parameters


class InitialSettings(Settings):
    """Settings of the initial values; each spread is a standard deviation."""

    std: float | None = Field(
        default=0.02, gt=0, description="of matrices; None: 1 / sqrt(inputs), by matrix"
    )
    embedding_std: float | None = Field(
        default=None,
        gt=0,
        description="of embeddings; None: as matrices, or 0.02 where those go by inputs",
    )
    outputs: Literal["plain", "scaled", "zero"] = Field(
        default="scaled", description="matrices that write into the residual stream"
    )
    head: Literal["plain", "zero"] = Field(default="plain", description="an untied head's matrix")


@torch.no_grad()
def initialise(
    root: nn.Module,
    settings: InitialSettings,
    layers: int,
    generator: torch.Generator | None = None,
) -> None:
    """Draw every parameter of a decoder.

    Args:
        root: the decoder, its parameters on the generator's device.
        generator: where chance comes from; None: torch's global one.
    """
    for _, parameter, name, part, role in owned_parameters(root):
        std = _spread(settings, layers, part, name, role, parameter)
        if role == "norm":
            parameter.fill_(1.0)
        elif std == 0.0:
            parameter.zero_()
        else:
            parameter.normal_(0.0, std, generator=generator)


def _spread(
    settings: InitialSettings, layers: int, part: Part, name: str, role: Role, parameter: Tensor
) -> float:
    """Return the standard deviation of a parameter's initial values."""
    if role == "bias":
        return 0.0
    if name in part.initial_std:
        return part.initial_std[name]
    if role in ("embedding", "table"):
        return settings.embedding_std or settings.std or 0.02
    if role == "head" and settings.head == "zero":
        return 0.0
    std = settings.std or parameter.shape[-1] ** -0.5
    if name not in part.outputs or settings.outputs == "plain":
        return std
    return 0.0 if settings.outputs == "zero" else std / math.sqrt(2 * layers)
