"""What a step of reinforcement reads: texts that were written, and what was found about them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from coterie.batch import TokenBatch


@dataclass(frozen=True, eq=False)
class RolloutBatch(TokenBatch):
    """Texts with their prompts, one a row; targets are the tokens that were written.

    Attributes:
        weights: what each token counts in the loss of the policy.
        share: [B], what each row adds to the divisor of that loss.
        advantages: [B, T], of each token.
        old: [B, T], log-probabilities of the policy that wrote; None: it is the one that learns.
        reference: [B, T], those of the frozen reference; None where there is none.
        written: [B, T], those told when the tokens were drawn.
        routes: [B, T, L, k], the routers' choices of then; None without routers.
        values: [B, T], what the value head expected then.
        returns: [B, T], what the value head is to expect.
    """

    share: Float[Tensor, " B"] | None = None
    advantages: Float[Tensor, "B T"] | None = None
    old: Float[Tensor, "B T"] | None = None
    reference: Float[Tensor, "B T"] | None = None
    written: Float[Tensor, "B T"] | None = None
    routes: Int[Tensor, "B T L k"] | None = None
    values: Float[Tensor, "B T"] | None = None
    returns: Float[Tensor, "B T"] | None = None

    def but(self, **changes: Tensor | None) -> "RolloutBatch":
        """Return a copy with some tensors changed."""
        return replace(self, **changes)

    def save(self, path: Path) -> None:
        """Write the batch into a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        partial = path.with_suffix(".partial")
        save_file({name: each.cpu() for name, each in held.items() if each is not None}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "RolloutBatch":
        """Read a batch back."""
        return cls(**{name: each.to(device) for name, each in load_file(path).items()})
