"""A reward model: one number for a text, learnt from pairs of which one was preferred.

Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, equation 1:
−log σ(s(x, y₊) − s(x, y₋)), where s is what the value head says at the last token of prompt and
text, before any end. Only differences are learnt, so the numbers of one prompt compare; `centre`
keeps them near 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coterie.align.encoding import encode, parts_of
from coterie.align.packing import Text, Unit
from coterie.align.preferences import PairedMethod, only_last, text_sums
from coterie.align.rows import Messages, each_row, pair_of
from coterie.align.settings import Alignment
from coterie.batch import IGNORE, TokenBatch
from coterie.checkpoint import LoadedModel
from coterie.foundation.errors import CheckpointError, DataError
from coterie.foundation.runs import RunDirectory
from coterie.generate.modes import evaluation
from coterie.model.context import ForwardContext
from coterie.tokenizer.chat import ChatTemplate, template_of
from coterie.train.method import Tell
from coterie.train.objective import Models, Term, Terms
from coterie.train.objective.routers import router_terms
from coterie.train.settings import RunSettings

_ROWS = 64


class RewardModel(Alignment):
    """A model of preferences."""

    kind: Literal["reward-model"] = "reward-model"
    centre: float = Field(
        default=0.01, ge=0, description="coefficient of the squared sum of a pair's two numbers"
    )

    def build(self, run: RunDirectory | None) -> RewardModelMethod:
        """Return the method."""
        return RewardModelMethod(self, run)


class RewardObjective:
    """The loss of pairs by the value head; metrics by TRL's names."""

    def __init__(self, centre: float) -> None:
        self._centre = centre

    def counts(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return how many pairs there are, and how many tokens are read."""
        assert batch.documents is not None
        there, _ = text_sums(_last(batch.documents), batch.documents)
        return {"pairs": there.sum(), "tokens": (batch.documents >= 0).sum()}

    def __call__(self, models: Models, batch: TokenBatch) -> Terms:
        """Read both texts of each pair."""
        assert batch.documents is not None
        output = models.decoder(batch.tokens, batch.targets, ForwardContext.of(batch))
        assert output.values is not None
        last = _last(batch.documents)
        there, _ = text_sums(last, batch.documents)
        chosen, rejected = text_sums(output.values.float() * last, batch.documents)
        losses = -F.logsigmoid(chosen - rejected) + self._centre * (chosen + rejected).square()
        said = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).to(chosen),
        }
        terms = [Term("loss", (losses * there).sum(), "pairs")]
        terms += [Term(n, (each.detach() * there).sum(), "pairs") for n, each in said.items()]
        return Terms(
            (*terms, *router_terms(output.router_stats, lambda layer: "tokens")),
            output.router_stats,
        )


def _last(documents: Tensor) -> Float[Tensor, "B T"]:
    """Return 1 at the last token of each text, else 0."""
    after = F.pad(documents[:, 1:], (0, 1), value=-1)
    return ((documents >= 0) & (documents != after)).float()


class RewardModelMethod(PairedMethod):
    """Bradley and Terry's."""

    alignment: RewardModel

    def objective(self, settings: RunSettings) -> RewardObjective:
        """Return the loss of pairs."""
        return RewardObjective(self.alignment.centre)

    def units(self, tell: Tell) -> list[Unit]:
        """Return each row's two conversations, the preferred one first."""

        def read(values: dict[str, Any]) -> Unit:
            chosen, rejected = (self._whole(each) for each in pair_of(values))
            return chosen, rejected

        return each_row(Path(self.alignment.data), read)

    def _whole(self, messages: Messages) -> Text:
        return encode(self.tokenizer, only_last(parts_of(self.template, messages)))


class RewardReader:
    """Reads texts with a reward model.

    Args:
        loaded: the checkpoint of a run of `coterie align reward-model`.

    Raises:
        CheckpointError: it has no value head that was trained to judge.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        if (loaded.settings.get("align") or {}).get("kind") != "reward-model":
            raise CheckpointError(
                f"{loaded.path} is no reward model.",
                hint="Train one: coterie align reward-model RUN pairs.jsonl",
            )
        self._decoder, self._tokenizer = loaded.decoder, loaded.tokenizer
        self._template: ChatTemplate = template_of(loaded.settings, loaded.tokenizer)

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        """Return a number for each prompt and text.

        Raises:
            DataError: a text is longer than the model reads.
        """
        rows = [self._tokens(*each) for each in texts]
        found: list[float] = []
        for first in range(0, len(rows), _ROWS):
            found += self._read(rows[first : first + _ROWS])
        return found

    def _tokens(self, prompt: str, text: str) -> Tensor:
        said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        tokens = torch.from_numpy(encode(self._tokenizer, parts_of(self._template, said)).tokens)
        if len(tokens) > (most := self._decoder.settings.context):
            raise DataError(f"The reward model reads {most} tokens, and a text has {len(tokens)}.")
        return tokens

    def _read(self, rows: Sequence[Tensor]) -> list[float]:
        lengths = torch.tensor([len(each) for each in rows])
        tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        targets = tokens.masked_fill(torch.arange(tokens.shape[1]) >= lengths[:, None], IGNORE)
        device = next(self._decoder.parameters()).device
        batch = TokenBatch(tokens, targets).to(device)
        with evaluation(self._decoder):
            values = self._decoder(batch.tokens, batch.targets, ForwardContext.of(batch)).values
        assert values is not None
        return values.cpu()[torch.arange(len(rows)), lengths - 1].tolist()
