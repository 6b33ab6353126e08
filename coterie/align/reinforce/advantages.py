"""Advantages: how much better a text, or a token, is than was to be expected.

Rewards of P prompts with K texts each are [P, K]; values and rewards of tokens are [B, T] with a
mask of those that were written.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_EPSILON = 1e-4


def group_advantages(rewards: Float[Tensor, "P K"], *, scaled: bool = True) -> Float[Tensor, "P K"]:
    """Return each text's reward less its group's mean, over the group's standard deviation.

    GRPO: Shao et al. 2024, arXiv:2402.03300, section 4.1.2. Without the division it is Dr. GRPO's:
    Liu et al. 2025, arXiv:2503.20783, where prompts that are very easy or very hard weigh no more.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if not scaled:
        return centred
    return centred / (rewards.std(1, keepdim=True, correction=0) + _EPSILON)


def leave_one_out(rewards: Float[Tensor, "P K"]) -> Float[Tensor, "P K"]:
    """Return each text's reward less the mean of the others of its group.

    RLOO: Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740, equation 8. Unbiased, for the
    baseline does not depend on the text.
    """
    number = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (number - 1)
    return rewards - others


def generalised_advantages(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    gamma: float,
    lam: float,
) -> Float[Tensor, "B T"]:
    """Return Σ_k (γλ)^k·δ_{t+k} with δ_t = r_t + γ·V_{t+1} − V_t; 0 where nothing was written.

    Schulman et al. 2015, arXiv:1506.02438, equation 16. After a row's last token the value is 0.

    Args:
        rewards: of each token.
        values: what was to be expected before each token was chosen.
        mask: the tokens that were written, in each row one run.
    """
    found = torch.zeros_like(values)
    after = torch.zeros_like(values[:, 0])  # the advantage of the next token
    later = torch.zeros_like(after)  # the value before the next token
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * later - values[:, t]
        after = torch.where(mask[:, t], delta + gamma * lam * after, 0.0)
        later = torch.where(mask[:, t], values[:, t], 0.0)
        found[:, t] = after
    return found


def whitened(x: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return x with mean 0 and standard deviation 1 over the mask; 0 outside of it."""
    chosen = x[mask]
    if chosen.numel() < 2:
        return torch.zeros_like(x)
    scaled = (x - chosen.mean()) / (chosen.std(correction=0) + 1e-8)
    return torch.where(mask, scaled, 0.0)
