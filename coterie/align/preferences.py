"""Preferences: DPO on pairs and KTO on single marks, beside the log-probabilities of a reference.

DPO (Rafailov et al. 2023, arXiv:2305.18290), with r = log π(y|x) − log π_ref(y|x) and
h = β·(r_chosen − r_rejected): −log σ(h), with label smoothing ε
−(1 − ε)·log σ(h) − ε·log σ(−h) (Mitchell 2023). IPO (Azar et al. 2023, arXiv:2310.12036):
(Δ − 1/(2β))², where Δ is the difference of the r per token, as its authors had it corrected in TRL.
`likelihood` α adds −α·log π(y_chosen) per token, which keeps the chosen text itself likely through
rounds of pairs (Pang et al. 2024, arXiv:2404.19733).

KTO (Ethayarajh et al. 2024, arXiv:2402.01306): w₊·(1 − σ(β·(r − z))) where wanted and
w₋·(1 − σ(β·(z − r))) where not; z = max(0, mean r) over questions with another row's answer, a
constant to the gradient, estimated in each micro-batch.

The two texts of a row stand in one row of the batch: chosen and rejected, or for KTO the text
itself and its question with the next row's answer. The reference is the model that the run began
with; what it says of each token is computed once, in float32, and kept in the run's directory.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.align.encoding import Part, encode, parts_of
from coterie.align.method import AlignData, AlignMethod
from coterie.align.packing import PackedRows, Text, Unit
from coterie.align.rows import Messages, each_row, marked_of, pair_of
from coterie.align.settings import Alignment
from coterie.batch import IGNORE, TokenBatch
from coterie.checkpoint.tensor_file import read_tensors, save_tensors
from coterie.foundation.errors import CheckpointError, DataError
from coterie.foundation.runs import RunDirectory
from coterie.generate.modes import evaluation
from coterie.model import Decoder
from coterie.model.context import ForwardContext
from coterie.train.events import Evaluated
from coterie.train.method import RunData, Tell
from coterie.train.objective import Models, Term, Terms
from coterie.train.objective.routers import router_terms
from coterie.train.settings import RunSettings

if TYPE_CHECKING:
    from coterie.train.session import Session

REFERENCE = "reference.safetensors"
_ROWS = 8  # that the reference reads at once


class Dpo(Alignment):
    """Direct preference optimization on pairs."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0, description="how close to the reference to stay")
    loss: Literal["sigmoid", "ipo"] = Field(default="sigmoid", description="DPO's own, or IPO's")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="how likely a pair is the wrong way round"
    )
    likelihood: float = Field(
        default=0.0, ge=0, description="coefficient of the chosen text's own loss, nats per token"
    )

    def build(self, run: RunDirectory | None) -> PreferenceMethod:
        """Return the method."""
        return PreferenceMethod(self, run)

    def losses(
        self,
        chosen: Float[Tensor, "*N"],
        rejected: Float[Tensor, "*N"],
        lengths: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "*N"]:
        """Return the loss of each pair, given r of both texts and how many tokens each sums."""
        if self.loss == "ipo":
            apart = chosen / lengths[0].clamp(min=1) - rejected / lengths[1].clamp(min=1)
            return (apart - 1 / (2 * self.beta)) ** 2
        apart = self.beta * (chosen - rejected)
        smooth = self.label_smoothing
        return -(1 - smooth) * F.logsigmoid(apart) - smooth * F.logsigmoid(-apart)


class Kto(Alignment):
    """Kahneman-Tversky optimization on answers that are marked as wanted or not."""

    kind: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0, description="how close to the reference to stay")
    desirable: float = Field(default=1.0, gt=0, description="weight of answers that are wanted")
    undesirable: float = Field(default=1.0, gt=0, description="weight of those that are not")

    def build(self, run: RunDirectory | None) -> MarkMethod:
        """Return the method."""
        return MarkMethod(self, run)

    def losses(
        self, ratios: Float[Tensor, "*N"], wanted: Tensor, z: Float[Tensor, ""]
    ) -> Float[Tensor, "*N"]:
        """Return the loss of each text, given r, whether it is wanted, and z."""
        good = self.desirable * (1 - torch.sigmoid(self.beta * (ratios - z)))
        bad = self.undesirable * (1 - torch.sigmoid(self.beta * (z - ratios)))
        return torch.where(wanted, good, bad)


@dataclass(frozen=True, eq=False)
class ReferredBatch(TokenBatch):
    """Texts in twos, and what the reference says of them.

    Attributes:
        reference: [B, T] its log-probability of each target; 0 where there is none.
        wanted: [B, T] 1 at a text that is wanted, else 0; of marks alone.
    """

    reference: Float[Tensor, "B T"] | None = None
    wanted: Float[Tensor, "B T"] | None = None


def text_sums(
    values: Float[Tensor, "B T"], documents: Int[Tensor, "B T"]
) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]]:
    """Return the sums over the first and the second text of each two; 0 where there is none.

    Texts of a row are numbered from 0, padding is −1, and there is room for T / 2 twos.
    """
    room = values.shape[1] + values.shape[1] % 2
    sums = values.new_zeros(values.shape[0], room)
    sums = sums.scatter_add(1, documents.clamp(min=0), values.masked_fill(documents < 0, 0))
    return sums[:, 0::2], sums[:, 1::2]


class _Objective:
    """What DPO and KTO share: log-probabilities of both texts, by the policy and the reference."""

    def counts(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return how many twos there are, and how many valid tokens."""
        first, _ = self.lengths(batch)
        return {"pairs": (first > 0).sum(), "tokens": batch.valid.sum()}

    @staticmethod
    def lengths(batch: TokenBatch) -> tuple[Tensor, Tensor]:
        assert batch.documents is not None
        return text_sums(batch.valid.float(), batch.documents)

    @staticmethod
    def read(models: Models, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
        """Return log π of the first and second texts, r of both, and the routers' statistics."""
        assert isinstance(batch, ReferredBatch)
        assert batch.documents is not None
        assert batch.reference is not None
        output = models.decoder(batch.tokens, batch.targets, ForwardContext.of(batch))
        assert output.losses is not None
        first, second = text_sums(-output.losses, batch.documents)
        reference = text_sums(batch.reference.to(output.losses), batch.documents)
        return first, second, first - reference[0], second - reference[1], output.router_stats


class PairObjective(_Objective):
    """The loss of pairs, and metrics by TRL's names."""

    def __init__(self, alignment: Dpo) -> None:
        self._alignment = alignment

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        """Read both texts of each pair."""
        beta, lengths = self._alignment.beta, self.lengths(batch)
        chosen, rejected, first, second, stats = self.read(models, batch)
        there = lengths[0] > 0
        losses = self._alignment.losses(first, second, lengths)
        if self._alignment.likelihood:  # 0 adds nothing, not even rounding
            losses = losses - self._alignment.likelihood * chosen / lengths[0].clamp(min=1)
        said = {
            "rewards/chosen": beta * first,
            "rewards/rejected": beta * second,
            "rewards/margins": beta * (first - second),
            "rewards/accuracies": (first > second).to(first),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        terms = [Term("loss", losses.where(there, 0).sum(), "pairs")]
        terms += [
            Term(name, each.detach().where(there, 0).sum(), "pairs") for name, each in said.items()
        ]
        return Terms((*terms, *router_terms(stats, lambda layer: "tokens")), stats)


class MarkObjective(_Objective):
    """The loss of marked texts; metrics of the wanted and of the others."""

    def __init__(self, alignment: Kto) -> None:
        self._alignment = alignment

    def counts(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return the texts, those wanted and those not."""
        wanted, there = self._wanted(batch)
        own = {"wanted": (there & wanted).sum(), "unwanted": (there & ~wanted).sum()}
        return {**super().counts(batch), **own}

    def _wanted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, ReferredBatch)
        assert batch.documents is not None
        assert batch.wanted is not None
        marks, _ = text_sums(batch.wanted, batch.documents)
        return marks > 0, self.lengths(batch)[0] > 0

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        """Read each text, and its question with another answer."""
        _, _, ratios, others, stats = self.read(models, batch)
        wanted, there = self._wanted(batch)
        z = (others.detach().where(there, 0).sum() / there.sum().clamp(min=1)).clamp(min=0)
        losses = self._alignment.losses(ratios, wanted, z)
        rewards = self._alignment.beta * ratios.detach()
        terms = (
            Term("loss", losses.where(there, 0).sum(), "pairs"),
            Term("rewards/chosen", rewards.where(there & wanted, 0).sum(), "wanted"),
            Term("rewards/rejected", rewards.where(there & ~wanted, 0).sum(), "unwanted"),
            Term("kl", z * there.sum(), "pairs"),
        )
        return Terms((*terms, *router_terms(stats, lambda layer: "tokens")), stats)


class PairedMethod(AlignMethod):
    """A method whose texts come in twos."""

    width = 2

    def evaluate(self, session: Session) -> list[Evaluated]:
        """Return the loss over what is held out: of a pair or marked text, not of a token."""
        data, device = session.store, session.precision.device
        assert isinstance(data, AlignData)
        if data.valid is None:
            return []
        objective, models = self.objective(session.settings), self.models(session.decoder)
        total, pairs, tokens, begin = 0.0, 0, 0, time.perf_counter()
        for first in range(0, data.valid.count, _ROWS):
            numbers = np.arange(first, min(first + _ROWS, data.valid.count))
            batch = data.valid.in_order(numbers).to(device)
            with evaluation(session.decoder), session.precision.autocast():
                found = objective(models, batch)
            total += float(found.terms[0].total)
            counts = objective.counts(batch)
            pairs += int(counts["pairs"])
            tokens += int(counts["tokens"])
        return [
            Evaluated(
                step=session.progress.step,
                split="valid",
                loss=total / max(pairs, 1),
                tokens=tokens,
                seconds=time.perf_counter() - begin,
            )
        ]


class _Referred(PairedMethod):
    """A method beside a reference, of which only log-probabilities are held."""

    def packed(self, units: Sequence[Unit], settings: RunSettings) -> PackedRows:
        """Return texts packed in twos."""
        rows = PackedRows(units, 2 * settings.row_length, settings.seed, ReferredBatch)
        rows.fill("reference", np.zeros((rows.count, rows.length), dtype=np.float32))
        return rows

    def begin(self, decoder: Decoder, data: RunData, tell: Tell) -> None:
        """Take the base's weights, and what the base says of all rows, computed once."""
        super().begin(decoder, data, tell)
        assert isinstance(data, AlignData)
        parts = {"train": data.train} | ({} if data.valid is None else {"valid": data.valid})
        kept = None if self.run is None else self.run.path / REFERENCE
        found: dict[str, Tensor] = {}
        if kept is not None and kept.is_file():
            found = read_tensors(kept)
        for name, rows in parts.items():
            key = f"{name}.{data.fingerprint}"
            if key not in found:
                tell(f"Computing what the reference says of {rows.texts:,} texts, once.")
                found[key] = reference_logprobs(decoder, rows)
            if found[key].shape != (rows.count, rows.length):
                raise CheckpointError(
                    f"{kept} does not fit the rows.", hint=f"Remove it; it is made anew: {kept}"
                )
            rows.fill("reference", found[key].numpy())
        if kept is not None and not kept.is_file():
            save_tensors(found, kept)


class PreferenceMethod(_Referred):
    """DPO."""

    alignment: Dpo

    def objective(self, settings: RunSettings) -> PairObjective:
        """Return DPO's loss, or IPO's."""
        return PairObjective(self.alignment)

    def units(self, tell: Tell) -> list[Unit]:
        """Return each row's two conversations, the preferred one first."""

        def read(values: dict[str, Any]) -> Unit:
            chosen, rejected = (self._last_learnt(each) for each in pair_of(values))
            return chosen, rejected

        return each_row(Path(self.alignment.data), read)

    def _last_learnt(self, messages: Messages) -> Text:
        parts = only_last(parts_of(self.template, messages))
        return encode(self.tokenizer, parts, ends=self.template.ends)


class MarkMethod(_Referred):
    """KTO."""

    alignment: Kto

    def objective(self, settings: RunSettings) -> MarkObjective:
        """Return KTO's loss."""
        return MarkObjective(self.alignment)

    def units(self, tell: Tell) -> list[Unit]:
        """Return each row's conversation, and its question with the next row's answer."""
        rows = each_row(
            Path(self.alignment.data),
            lambda values: (parts_of(self.template, marked_of(values)[0]), marked_of(values)[1]),
        )
        if len(rows) < 2:
            raise DataError(f"{self.alignment.data} has one row; KTO compares answers of several.")
        units: list[Unit] = []
        for (parts, mark), (other, _) in zip(rows, [*rows[1:], rows[0]], strict=True):
            mixed = [*parts[:-1], other[-1]]
            own, drawn = (
                encode(self.tokenizer, only_last(each), ends=self.template.ends)
                for each in (parts, mixed)
            )
            units.append((own._replace(value=float(mark)), drawn))
        return units

    def packed(self, units: Sequence[Unit], settings: RunSettings) -> PackedRows:
        """Return texts packed in twos, with their marks."""
        rows = super().packed(units, settings)
        rows.fill("wanted", rows.values)
        return rows


def only_last(parts: Sequence[Part]) -> list[Part]:
    """Return a conversation of which only the last answer is learnt."""
    return [*(part._replace(said=False) for part in parts[:-1]), parts[-1]]


def reference_logprobs(decoder: Decoder, rows: PackedRows) -> Float[Tensor, "R T"]:
    """Return the log-probability of each target of all rows, 0 where there is none, on the CPU."""
    device = next(decoder.parameters()).device
    found = []
    for first in range(0, rows.count, _ROWS):
        batch = rows.in_order(np.arange(first, min(first + _ROWS, rows.count))).to(device)
        with evaluation(decoder):
            losses = decoder(batch.tokens, batch.targets, ForwardContext.of(batch)).losses
        assert losses is not None
        found.append((-losses).masked_fill(batch.targets == IGNORE, 0).float().cpu())
    return torch.cat(found)
