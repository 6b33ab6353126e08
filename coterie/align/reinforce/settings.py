"""Settings of reinforcement: what is written, how it is judged, how the model learns from it."""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coterie.align.reinforce.advantages import (
    generalised_advantages,
    group_advantages,
    leave_one_out,
    whitened,
)
from coterie.align.reinforce.batch import RolloutBatch
from coterie.align.reinforce.losses import Estimator
from coterie.align.reinforce.method import ReinforceMethod
from coterie.align.rewards import Reward
from coterie.align.settings import Alignment
from coterie.foundation.runs import RunDirectory
from coterie.generate import SamplingSettings

Aggregation = Literal["text", "token", "fixed"]


class Reinforcement(Alignment):
    """What all methods of reinforcement have in common."""

    rewards: tuple[Reward, ...] = Field(
        min_length=1, description="what judges texts: the weighted sum of these"
    )
    prompts: str | None = Field(
        default=None,
        description="file of what texts are written on: JSON lines with “prompt”, or a line each; "
        "None: lines of the run's own training text",
    )
    held_out: str | None = Field(
        default=None,
        description="file of prompts that are only judged; None: lines of the held-out text, or "
        "the last tenth of `prompts`",
    )
    prompt_lines: int = Field(default=2, ge=1, description="lines of a prompt out of the text")
    prompts_per_rollout: int = Field(default=8, ge=1, description="prompts of a rollout")
    texts_per_prompt: int = Field(default=8, ge=1, description="texts on each, a group")
    rollout: SamplingSettings = Field(
        default=SamplingSettings(temperature=1.0, max_tokens=64, compute="torch"),
        description="how texts are drawn; any constraint and cache serves",
    )
    lengths: tuple[int, int] | None = Field(
        default=None,
        description="most tokens of a text in the first step and from the middle of the run on; "
        "None: rollout.max_tokens",
    )
    lines: tuple[int, ...] = Field(
        default=(1,), description="lines after which a text ends; several: a course to go through"
    )
    advance: float = Field(
        default=0.6, description="mean of the first reward that leads on to the next of `lines`"
    )
    updates: int = Field(default=1, ge=1, description="optimizer steps on each rollout")
    clip_low: float = Field(
        default=0.2, gt=0, lt=1, description="how far below 1 a probability ratio counts"
    )
    clip_high: float = Field(default=0.2, gt=0, description="how far above 1 it counts")
    sequence_ratio: bool = Field(
        default=False, description="one ratio a text, as in GSPO, not one a token"
    )
    kl: float = Field(default=0.05, ge=0, description="coefficient of the KL to the start")
    kl_target: float | None = Field(
        default=None, gt=0, description="KL in nats per token that the coefficient is moved for"
    )
    kl_rate: float = Field(default=0.1, gt=0, description="how fast it is moved")
    kl_estimator: Estimator = Field(default="k3", description="how the KL of a token is told")
    entropy: float = Field(default=0.0, ge=0, description="coefficient of the entropy bonus")
    aggregation: Aggregation = Field(
        default="text",
        description="what weighs the same: each text, each token, or each text's sum over the most "
        "tokens (unbiased by length)",
    )
    replay: bool = Field(
        default=True, description="routers repeat in the update what they chose in the rollout"
    )
    judged_texts: int = Field(
        default=150, ge=1, description="held-out prompts judged at train.evaluate_every"
    )
    stop_kl: float | None = Field(
        default=None, gt=0, description="KL in nats per token that ends the run"
    )
    stop_alarms: int | None = Field(
        default=None, ge=1, description="alarms of one evaluation that end the run"
    )

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if self.compares and self.texts_per_prompt < 2:
            raise ValueError("texts_per_prompt=1: a text is compared with others of its prompt")
        if any(first >= then for first, then in zip(self.lines, self.lines[1:], strict=False)):
            raise ValueError(f"lines are to grow, got {list(self.lines)}")
        if not self.lines or self.lines[0] < 1:
            raise ValueError("lines wants at least one number, from 1")
        return self

    @property
    def rows(self) -> int:
        """Texts of a rollout."""
        return self.prompts_per_rollout * self.texts_per_prompt

    @property
    def learnt_rows(self) -> int:
        """Texts that a step learns from."""
        return self.rows

    def build(self, run: RunDirectory | None) -> ReinforceMethod:
        """Return the method."""
        return ReinforceMethod(self, run)

    compares: ClassVar[bool] = True
    critic: ClassVar[bool] = False
    imitates: ClassVar[bool] = False  # what is learnt is learnt by cross-entropy

    def value_terms(self) -> tuple[float, float | None]:
        """Return the coefficient of the value loss, 0 without one, and what its clip is."""
        return 0.0, None

    def advantages(self, batch: RolloutBatch, rewards: Tensor, kl: float) -> dict[str, Tensor]:
        """Return `advantages`, and what else of the batch follows from rewards [P, K]."""
        raise NotImplementedError

    def learnt(self, batch: RolloutBatch, rewards: Tensor, kl: float) -> RolloutBatch:
        """Return what the steps learn from, with advantages."""
        return batch.but(**self.advantages(batch, rewards, kl))

    def _spread(self, batch: RolloutBatch, of_texts: Tensor) -> dict[str, Tensor]:
        """Return every token's advantage where that of its text is known, [P, K]."""
        each = of_texts.flatten()[:, None].to(batch.tokens.device)
        return {"advantages": torch.where(batch.valid, each, 0.0).float()}


class Grpo(Reinforcement):
    """A text is held against the others on its prompt (Shao et al. 2024, arXiv:2402.03300).

    `scaled: false` is Dr. GRPO (Liu et al. 2025, arXiv:2503.20783), together with
    `aggregation: fixed`; `aggregation: token` and a larger `clip_high` are DAPO's.
    """

    kind: Literal["grpo"] = "grpo"
    scaled: bool = Field(default=True, description="divide by the group's standard deviation")

    def advantages(self, batch: RolloutBatch, rewards: Tensor, kl: float) -> dict[str, Tensor]:
        return self._spread(batch, group_advantages(rewards, scaled=self.scaled))


class Reinforce(Reinforcement):
    """REINFORCE with the mean of the others as baseline, RLOO (Ahmadian et al. 2024)."""

    kind: Literal["reinforce"] = "reinforce"

    def advantages(self, batch: RolloutBatch, rewards: Tensor, kl: float) -> dict[str, Tensor]:
        return self._spread(batch, leave_one_out(rewards))


class Rejection(Reinforcement):
    """Rejection tuning: the best texts on each prompt are learnt as if they were data.

    Each rollout is a round; the loss is that of fine-tuning, the mean cross-entropy of the tokens
    of the best (best-of-n; Touvron et al. 2023, arXiv:2307.09288, section 3.2.3).
    """

    kind: Literal["rejection"] = "rejection"
    prompts_per_rollout: int = Field(default=16, ge=1, description="prompts of a round")
    keep: int = Field(default=1, ge=1, description="best texts on each prompt that are learnt")
    updates: int = Field(default=2, ge=1, description="optimizer steps on each round")
    kl: float = Field(default=0.0, ge=0, description="coefficient of the KL to the start")
    aggregation: Aggregation = Field(default="token", description="what weighs the same")

    imitates = True

    @model_validator(mode="after")
    def _rejects(self) -> Self:
        if self.keep >= self.texts_per_prompt:
            raise ValueError(f"keep={self.keep} of {self.texts_per_prompt} texts rejects none")
        return self

    @property
    def learnt_rows(self) -> int:
        return self.prompts_per_rollout * self.keep

    def learnt(self, batch: RolloutBatch, rewards: Tensor, kl: float) -> RolloutBatch:
        """Return the best texts on each prompt."""
        prompts, number = rewards.shape
        first = torch.arange(prompts)[:, None] * number
        rows = (first + rewards.topk(self.keep, 1).indices).flatten().sort().values
        best = batch.take(rows.to(batch.tokens.device))
        assert isinstance(best, RolloutBatch)
        return best.but(advantages=best.valid.float())


class Ppo(Reinforcement):
    """PPO: a value head expects what is to come, token by token (Schulman et al. 2017).

    The KL is a cost of each token, the reward comes with the last one.
    """

    kind: Literal["ppo"] = "ppo"
    texts_per_prompt: int = Field(default=2, ge=1, description="texts on each prompt")
    prompts_per_rollout: int = Field(default=32, ge=1, description="prompts of a rollout")
    updates: int = Field(default=2, ge=1, description="optimizer steps on each rollout")
    gamma: float = Field(default=1.0, gt=0, le=1, description="discount per token")
    lam: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="λ of the generalised advantages; below 1 early tokens hear little of a reward "
        "that comes with the last one",
    )
    value: float = Field(default=0.5, gt=0, description="coefficient of the value loss")
    value_clip: float | None = Field(
        default=0.2, gt=0, description="how far a value may leave its old one; None: any"
    )
    whiten: bool = Field(default=True, description="advantages of a rollout as deviations")

    compares = False
    critic = True

    def value_terms(self) -> tuple[float, float | None]:
        """Return the coefficient of the value loss and its clip."""
        return self.value, self.value_clip

    def advantages(self, batch: RolloutBatch, rewards: Tensor, kl: float) -> dict[str, Tensor]:
        assert batch.values is not None
        valid, values = batch.valid, batch.values
        of_tokens = torch.zeros_like(values)
        if batch.reference is not None and batch.old is not None:
            of_tokens = torch.where(valid, -kl * (batch.old - batch.reference), 0.0)
        last = valid.shape[1] - 1 - valid.flip(1).int().argmax(1)
        rows = torch.arange(len(last), device=last.device)
        of_tokens[rows, last] += rewards.flatten().to(of_tokens)
        found = generalised_advantages(of_tokens, values, valid, self.gamma, self.lam)
        returns = torch.where(valid, found + values, 0.0)
        return {"advantages": whitened(found, valid) if self.whiten else found, "returns": returns}
