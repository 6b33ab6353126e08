"""Expert dropout: in training, each expert is left out of a batch's selection now and then.

The others must learn to do without it. After Srivastava et al. 2014 (dropout), jmlr.org/papers/v15,
with whole experts for units; so many always remain that a token can go to as many as usual.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def draw_left_out(
    experts: int, remaining: int, probability: float, device: torch.device
) -> Bool[Tensor, " E"]:
    """Return which experts are left out, each with the given probability.

    Args:
        experts: how many there are, E.
        remaining: so many stay at least: those whose draw was highest.
        probability: of being left out.
        device: whose global generator chance comes from.
    """
    draw = torch.rand(experts, device=device)
    lowest_that_stays = draw.topk(remaining).values[-1]
    return (draw < probability) & (draw < lowest_that_stays)
