"""Capacity: every expert has room for a limited number of tokens; pairs beyond it overflow.

Lepikhin et al. 2020 (GShard), arXiv:2006.16668; Fedus, Zoph & Shazeer 2021 (Switch),
arXiv:2101.03961, equation 3: capacity = ⌈capacity_factor · N·k / E⌉. Room is given in order of
position first and row second, so whether a token finds room never depends on what follows it in its
own row or in another. Tokens that do not count (padding) take no room, are not counted in N and
never overflow: a row is treated alike however it is padded.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def draw_excluded(
    experts: int, remaining: int, probability: float, device: torch.device
) -> Bool[Tensor, " E"]:
    """Return which experts expert dropout excludes from a batch, each with the given probability.

    The others must learn to do without them. After Srivastava et al. 2014 (dropout),
    jmlr.org/papers/v15, with whole experts for units; enough always remain for a token to go to as
    many as usual.

    Args:
        experts: how many there are, E.
        remaining: how many stay at least: those whose draw was highest.
        probability: of being excluded.
        device: whose global generator is drawn from.
    """
    draw = torch.rand(experts, device=device)
    lowest_that_stays = draw.topk(remaining).values[-1]
    return (draw < probability) & (draw < lowest_that_stays)


_ROUNDING = 1e-6  # relative; keeps 1.1 · 10 from becoming 12 places


@torch.no_grad()
def overflow_mask(
    indices: Int[Tensor, "B T k"],
    valid: Bool[Tensor, "B T"] | None,
    experts: int,
    capacity_factor: float,
) -> Bool[Tensor, "B T k"]:
    """Return the pairs that find no room.

    Args:
        indices: experts of each token; `experts` stands for none.
        valid: which tokens count; None: all.
        experts: how many there are, E.
        capacity_factor: room over an even load.
    """
    batch, length, per_token = indices.shape
    queue = indices if valid is None else indices.masked_fill(~valid[..., None], experts)
    queue = queue.transpose(0, 1).reshape(-1)  # by position, then by row
    order = queue.argsort(stable=True)
    sorted_queue = queue[order]
    sizes = queue.new_zeros(experts + 1).scatter_add_(0, queue, torch.ones_like(queue))
    places = torch.arange(queue.shape[0], device=queue.device)
    rank = places - (sizes.cumsum(0) - sizes)[sorted_queue]
    tokens = queue.new_full((), batch * length) if valid is None else valid.sum()
    even = tokens.to(torch.float32) * per_token / experts
    capacity = (capacity_factor * even * (1 - _ROUNDING)).ceil()
    overflow = (rank >= capacity) & (sorted_queue < experts)
    overflow = torch.empty_like(overflow).scatter_(0, order, overflow)
    return overflow.view(length, batch, per_token).transpose(0, 1)
