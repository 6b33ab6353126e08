"""The language model objective: cross-entropy of the next token, weighted mean over the batch.

A model with modules of multi-token prediction adds their mean loss, Σ_k λ/K · CE_k (DeepSeek-V3,
arXiv:2412.19437, equation 24); λ is `model.mtp.weight`. Each depth is divided by its own targets,
which are fewer the deeper it looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.batch import IGNORE, TokenBatch
from coterie.foundation.settings import Settings
from coterie.model import DecoderSettings, mtp_targets
from coterie.model.context import ForwardContext
from coterie.train.objective.interface import Models, Term, Terms
from coterie.train.objective.routers import router_terms


class LanguageModel(Settings):
    """Predict each next token, and those after it with the modules that the model has for that."""

    kind: Literal["language_model"] = "language_model"

    def build(self, model: DecoderSettings) -> LanguageModelObjective:
        """Return the objective for a decoder of these settings."""
        return LanguageModelObjective(model)


class LanguageModelObjective:
    """Σ w · cross-entropy / Σ w, multi-token prediction and the routers' terms."""

    def __init__(self, model: DecoderSettings) -> None:
        self._layers = model.layers
        self._depth = model.mtp.depth if model.mtp else 0
        self._coefficient = model.mtp.weight / model.mtp.depth if model.mtp else 0.0

    def counts(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return the weight of the targets and the number of valid tokens, at each depth."""
        counts = {"targets": batch.total_weight(), "tokens": batch.valid.sum()}
        for depth in range(1, min(self._depth, batch.targets.shape[1] - 1) + 1):
            targets = mtp_targets(batch.targets, depth, batch.documents)
            counts[f"targets {depth}"] = _total_weight(targets, _later(batch.weights, depth))
            counts[f"tokens {depth}"] = (targets != IGNORE).sum()
        return counts

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        """Read the batch once."""
        output = models.decoder(batch.tokens, batch.targets, ForwardContext.of(batch))
        assert output.losses is not None
        terms = [Term("loss", _weighted_sum(output.losses, batch.weights), "targets")]
        for depth, losses in enumerate(output.mtp, start=1):
            total = _weighted_sum(losses, _later(batch.weights, depth))
            terms.append(Term("mtp", total, f"targets {depth}", self._coefficient))
        terms += router_terms(output.router_stats, self._tokens_of)
        return Terms(tuple(terms), output.router_stats, _of_rows(output.losses, batch))

    def _tokens_of(self, layer: int) -> str:
        """Return the count of a layer's valid tokens; layers of MTP follow the decoder's own."""
        depth = layer - self._layers + 1
        return f"tokens {depth}" if depth > 0 else "tokens"


def _of_rows(losses: Float[Tensor, "B T"], batch: TokenBatch) -> Float[Tensor, "3 B"] | None:
    """Return the source, the loss and the weight of each row, where sources are mixed."""
    if batch.sources is None:
        return None
    losses = losses.detach()
    weights = batch.valid.to(losses)
    if batch.weights is not None:
        weights, losses = weights * batch.weights, losses * batch.weights
    return torch.stack([batch.sources.to(losses), losses.sum(1), weights.sum(1)])


def _later(weights: Tensor | None, depth: int) -> Tensor | None:
    return None if weights is None else weights[:, depth:]


def _total_weight(targets: Int[Tensor, "B T"], weights: Float[Tensor, "B T"] | None) -> Tensor:
    valid = targets != IGNORE
    return valid.sum() if weights is None else weights.masked_fill(~valid, 0.0).sum()


def _weighted_sum(losses: Float[Tensor, "B T"], weights: Float[Tensor, "B T"] | None) -> Tensor:
    return losses.sum() if weights is None else (losses * weights).sum()
