"""Expert dropout: in training, each expert is excluded from a batch's selection now and then.

The others must learn to do without it. After Srivastava et al. 2014 (dropout), jmlr.org/papers/v15,
with whole experts for units; enough always remain for a token to go to as many as usual.
"""

import torch
from jaxtyping import Bool
from torch import Tensor


def draw_excluded(
    experts: int, remaining: int, probability: float, device: torch.device
) -> Bool[Tensor, " E"]:
    """Return which experts are excluded, each with the given probability.

    Args:
        experts: how many there are, E.
        remaining: how many stay at least: those whose draw was highest.
        probability: of being excluded.
        device: whose global generator is drawn from.
    """
    draw = torch.rand(experts, device=device)
    lowest_that_stays = draw.topk(remaining).values[-1]
    return (draw < probability) & (draw < lowest_that_stays)
