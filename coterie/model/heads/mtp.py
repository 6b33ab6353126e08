"""Multi-token prediction: while training, each position also predicts tokens beyond the next.

DeepSeek-V3, arXiv:2412.19437, section 2.2. Module k takes the hidden states of depth k − 1 (of the
decoder's last block for k = 1) and the embedded tokens k places on, normalises both, projects them
together from 2·D to D and sends them through a block of its own, with the decoder's embedding and
head:

    h'ᵏ_i = M_k · [norm(hᵏ⁻¹_i); norm(embed(t_{i+k}))]
    hᵏ = block_k(h'ᵏ),  p(t_{i+k+1}) = head(hᵏ_i)

So hᵏ_i has seen tokens up to i + k and no further. Embedded tokens are those that the first block
reads, positions and structure included; every module normalises what it hands the head itself, and
`normalised` ones read that of the depth before. Generation does without these modules, which cost
parameters and nothing per token written, unless they guess (`speculation=mtp`).
"""

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.batch import IGNORE
from coterie.foundation.settings import Settings
from coterie.model.blocks import Block, BlockPlan
from coterie.model.context import EMPTY, ForwardContext
from coterie.model.costs import Count, linear
from coterie.model.dropout import Dropout
from coterie.model.experts import RouterStats
from coterie.model.norm import Norm
from coterie.model.part import Part


class MTPSettings(Settings):
    """Settings of multi-token prediction."""

    depth: int = Field(default=1, ge=1, le=256, description="further tokens predicted")
    weight: float = Field(
        default=0.3, ge=0, description="of the mean of all depths' losses beside the text's own"
    )
    block: str | None = Field(
        default=None, description="the variation of each module's block; None: as the last layer"
    )
    normalised: bool = Field(
        default=False,
        description="modules read states that the norm before the head went through, as published "
        "checkpoints have it",
    )

    def counts(self, plan: BlockPlan, norm: Norm, width: int) -> tuple[Count, ...]:
        """Return the count of each module: parameters alone, for decoding uses nothing of it."""
        parts = (
            norm.counts("hidden_norm", width),
            norm.counts("token_norm", width),
            linear("projection", 2 * width, width),
            plan.counts("block", width, 1),
            norm.counts("norm", width),
        )
        module = Count.of("mtp", "in training", [_parameters_alone(part) for part in parts])
        return (module,) * self.depth


class MTPModule(Part):
    """One depth: joins hidden states with the embedding of later tokens, and a block."""

    roles = {"projection": "matrix"}

    def __init__(self, plan: BlockPlan, norm: Norm, width: int, dropout: Dropout) -> None:
        super().__init__()
        self.hidden_norm = norm.build(width)
        self.token_norm = norm.build(width)
        self.projection = nn.Parameter(torch.empty(width, 2 * width))
        self.block = Block(plan, width, dropout)
        self.norm = norm.build(width)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        later: Float[Tensor, "B T D"],
        context: ForwardContext = EMPTY,
    ) -> tuple[Float[Tensor, "B T D"], RouterStats | None]:
        """Return the hidden states of this depth, and its block's router statistics.

        Args:
            hidden: of the depth before.
            later: embedded tokens, as many places on as this depth is deep.
            context: of the positions of `hidden`.
        """
        both = torch.cat((self.hidden_norm(hidden), self.token_norm(later)), dim=-1)
        joined = F.linear(both, self.projection).to(hidden.dtype)
        return self.block(joined, context)


def mtp_targets(
    targets: Int[Tensor, "B T"], depth: int, documents: Int[Tensor, "B T"] | None = None
) -> Int[Tensor, "B n"]:
    """Return what the first n = T − depth positions predict `depth` tokens beyond the next one.

    Args:
        targets: the token after each position; −100 is left out, here as there.
        depth: how many tokens further.
        documents: the document of each token; nothing is predicted across their ends.
    """
    later = targets[:, depth:]
    if documents is None:
        return later
    return later.where(documents[:, depth:] == documents[:, : later.shape[1]], IGNORE)


def _parameters_alone(part: Count) -> Count:
    inside = tuple(_parameters_alone(each) for each in part.parts)
    return Count(part.name, part.detail, part.parameters, parts=inside)
