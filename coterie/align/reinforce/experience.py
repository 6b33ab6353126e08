"""A rollout becomes a batch: texts are written, judged, read by the reference, held against others.

Everything follows from the weights, the seed and the rollout's number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from coterie.align.reinforce.batch import RolloutBatch
from coterie.align.reinforce.events import RolloutDone
from coterie.align.reinforce.objective import read_policy
from coterie.align.reinforce.rollout import Writer, Written
from coterie.align.rewards import Judge, Sample, Scores
from coterie.batch import IGNORE
from coterie.generate.modes import evaluation
from coterie.model import Decoder

if TYPE_CHECKING:
    from coterie.align.reinforce.settings import Aggregation, Reinforcement

_ROWS = 64
_LIKE = 1e-8  # rewards of a group that differ by less are the same


@dataclass(frozen=True)
class Course:
    """How long texts are at the time: most tokens, and lines."""

    max_tokens: int | None
    lines: int


@dataclass(frozen=True)
class Experience:
    """What a rollout gave: the batch to learn from, and what is told of it."""

    batch: RolloutBatch
    done: RolloutDone
    samples: list[Sample]
    scores: Scores


class Collector:
    """Collects experience with a decoder.

    Args:
        reference: the frozen one that the KL is held against and fluency asks; None: nobody does.
        autocast: the precision that passes over whole texts run in, as steps do.
    """

    def __init__(
        self,
        settings: Reinforcement,
        decoder: Decoder,
        reference: Decoder | None,
        writer: Writer,
        judge: Judge,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._settings, self._decoder, self._reference = settings, decoder, reference
        self._writer, self._judge, self._autocast = writer, judge, autocast
        self._device = next(decoder.parameters()).device

    def judged(
        self, prompts: Sequence[str], number: int, seed: int, course: Course
    ) -> tuple[list[Written], RolloutBatch, list[Sample], Scores]:
        """Return texts on prompts, as a batch without advantages, and what they got.

        Raises:
            RewardError: one cannot be judged.
        """
        written = self._writer.write(prompts, number, seed, course.max_tokens, course.lines)
        batch = assembled(written, self._settings.aggregation, course.max_tokens or
                          self._settings.rollout.max_tokens).to(self._device)  # fmt: skip
        assert isinstance(batch, RolloutBatch)
        if self._reference is not None:
            batch = batch.but(reference=self._read(self._reference, batch, own=False)[0])
        samples = [
            Sample(prompt, each.text, each.ended, len(each.tokens), likely)
            for prompt, each, likely in zip(
                (prompt for prompt in prompts for _ in range(number)),
                written,
                _means(batch),
                strict=True,
            )
        ]
        return written, batch, samples, self._judge(samples)

    def collect(
        self, prompts: Sequence[str], seed: int, step: int, course: Course, kl: float
    ) -> Experience:
        """Return the experience of a rollout that the steps from `step` on learn from."""
        began, settings = time.perf_counter(), self._settings
        number = settings.texts_per_prompt
        written, batch, samples, scores = self.judged(prompts, number, seed, course)
        if settings.critic or (settings.updates > 1 and not settings.imitates):
            old, values = self._read(self._decoder, batch, own=True)
            batch = batch.but(old=old, values=values)
        rewards = torch.tensor(scores.total, dtype=torch.float64).view(-1, number)
        tokens = sum(len(each.tokens) for each in written)
        seconds = time.perf_counter() - began
        figures = told(written, rewards, scores)
        if batch.reference is not None and batch.written is not None:
            old = batch.written if batch.old is None else batch.old
            figures["kl"] = float((old - batch.reference).sum() / batch.valid.sum())
        if not settings.kl and not settings.kl_target:
            batch = batch.but(reference=None)  # it would be read for nothing
        return Experience(
            settings.learnt(batch, rewards, kl),
            RolloutDone(
                step=step, texts=len(written), tokens=tokens, seconds=seconds, figures=figures
            ),
            samples,
            scores,
        )

    def _read(
        self, decoder: Decoder, batch: RolloutBatch, *, own: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities and values of a batch, without gradients.

        Args:
            own: by the decoder that wrote, whose routers repeat their choices.
        """
        logprobs, values = [], []
        rows = torch.arange(batch.tokens.shape[0], device=self._device)
        with evaluation(decoder), self._autocast():
            for some in rows.split(_ROWS):
                part = batch.take(some)
                assert isinstance(part, RolloutBatch)
                part = part if own else part.but(routes=None)
                replay = self._settings.replay
                read = read_policy(decoder, decoder, part, self._settings.rollout.temperature,
                                   replay=replay)  # fmt: skip
                logprobs.append(read.logprobs)
                values.append(read.output.values)
        kept = [each for each in values if each is not None]
        # Out of inference mode, for gradients flow past them.
        return torch.cat(logprobs).clone(), torch.cat(kept).clone() if own and kept else None


def assembled(
    written: Sequence[Written], aggregation: Aggregation, max_tokens: int
) -> RolloutBatch:
    """Return texts as rows, aligned left; weights and shares say what each token counts."""
    length = max(len(each.prompt) + len(each.tokens) for each in written) - 1
    shape = (len(written), length)
    tokens, targets = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORE)
    weights, logprobs = torch.zeros(shape), torch.zeros(shape)
    share, routes = torch.ones(len(written)), None
    if written[0].routes is not None:
        routes = torch.full((*shape, *written[0].routes.shape[1:]), -1, dtype=torch.int16)
    for row, each in enumerate(written):
        whole = torch.tensor([*each.prompt, *each.tokens])
        stop = len(whole) - 1
        first, count = len(each.prompt) - 1, len(each.tokens)
        tokens[row, :stop] = whole[:-1]
        targets[row, first:stop] = whole[first + 1 :]
        logprobs[row, first:stop] = torch.tensor(each.logprobs)
        if routes is not None and each.routes is not None:
            routes[row, :stop] = each.routes
        weight = {"text": 1 / count, "token": 1.0, "fixed": 1 / max_tokens}[aggregation]
        weights[row, first:stop] = weight
        share[row] = count if aggregation == "token" else 1.0
    return RolloutBatch(tokens, targets, weights, share=share, written=logprobs, routes=routes)


def _means(batch: RolloutBatch) -> list[float | None]:
    """Return the mean log-probability of each text under the reference."""
    if batch.reference is None:
        return [None] * batch.tokens.shape[0]
    return (batch.reference.sum(1) / batch.valid.sum(1)).tolist()


def told(written: Sequence[Written], rewards: Tensor, scores: Scores) -> dict[str, float]:
    """Return the figures of a rollout by TRL's names; rewards are [P, K]."""
    lengths = [len(each.tokens) for each in written]
    ended = [len(each.tokens) for each in written if each.ended]
    deviations = rewards.std(1, correction=0)
    figures = {
        "reward": float(rewards.mean()),
        "reward_std": float(deviations.mean()),
        "frac_reward_zero_std": float((deviations < _LIKE).double().mean()),
        "completions/mean_length": statistics.fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": 1 - len(ended) / len(lengths),
    }
    if ended:
        figures["completions/mean_terminated_length"] = statistics.fmean(ended)
    for name, values in scores.parts.items():
        figures[f"rewards/{name}/mean"] = statistics.fmean(values)
        figures[f"rewards/{name}/std"] = statistics.pstdev(values)
    return figures
