"""A run of reinforcement: prompts, rollouts as batches, the reference, held-out prompts, alarms."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from coterie.align.method import AlignMethod
from coterie.align.reinforce.batch import RolloutBatch
from coterie.align.reinforce.events import HeldOutJudged
from coterie.align.reinforce.experience import Collector, Course
from coterie.align.reinforce.losses import AdaptiveKL
from coterie.align.reinforce.objective import PolicyModels, ReinforceObjective, Weights
from coterie.align.reinforce.prompts import drawn, prompts_of_text, read_prompts, spread
from coterie.align.reinforce.rollout import Writer, require_room
from coterie.align.reinforce.watch import alarms, figures_of
from coterie.align.rewards import Corpus, Judge, Sample
from coterie.batch import TokenBatch
from coterie.checkpoint import load_model, step_of
from coterie.checkpoint.layout import CONFIG, list_checkpoints
from coterie.checkpoint.tensors import OF_METHOD
from coterie.data.cache import store_for
from coterie.evaluate.scoring import sequence_logprobs
from coterie.foundation.errors import CheckpointError, CoterieError, DataError
from coterie.foundation.files import sha256_bytes
from coterie.foundation.records import validated
from coterie.foundation.runs import cache_root
from coterie.model import Decoder, Output
from coterie.tokenizer.interface import Tokenizer
from coterie.train.events import Evaluated
from coterie.train.method import Batches, RunData, Tell, Trainable
from coterie.train.objective import Models, Objective
from coterie.train.settings import RunSettings, TrainSettings

if TYPE_CHECKING:
    from coterie.align.reinforce.settings import Reinforcement
    from coterie.train.session import Session

_STATE = f"{OF_METHOD}reinforcement"
_SHOWN = 3
_HELD_OUT_SEED = 1 << 40  # of texts that are only judged: the same random streams each time
_AT_ONCE = 256


@dataclass(frozen=True)
class PromptData:
    """What texts are written on, in memory.

    Attributes:
        tokenizer: of the run that this one began from.
        train, valid: prompts to learn on, and those that are only judged.
        corpus: the training text, for rewards that hold texts against it.
        human: how the held-out text itself goes on after `valid`; empty where that is not known.
        sources: nothing is mixed.
    """

    tokenizer: Tokenizer
    train: list[str]
    valid: list[str]
    corpus: Corpus
    human: list[Sample] = field(default_factory=list)
    sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the rollouts beside weights and settings."""
        parts = (self.tokenizer.fingerprint, *self.train, "\0", *self.valid, self.corpus.text)
        return sha256_bytes("\n".join(parts).encode())

    def check_content(self) -> None:
        """Nothing is read any more."""


class Moving:
    """What moves beside the weights, kept in every checkpoint: β and the place in the course."""

    def __init__(self, settings: Reinforcement) -> None:
        self.kl = AdaptiveKL(settings.kl, settings.kl_target, settings.kl_rate)
        self.stage = 0


class PolicyTrainable(Trainable):
    """What the optimizer moves, be it adapters, and the little beside it."""

    recordable = False  # a graph is of one shape, and rollouts are of many

    def __init__(self, inner: Trainable, moving: Moving) -> None:
        self._inner, self._moving = inner, moving
        self.parameters = inner.parameters

    def moved(self) -> None:
        self._inner.moved()

    def kept(self) -> dict[str, Tensor]:
        state = [self._moving.kl.coefficient, float(self._moving.stage)]
        return {**self._inner.kept(), _STATE: torch.tensor(state, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> set[str]:
        used = self._inner.restore(tensors)
        coefficient, stage = tensors[_STATE].tolist()
        self._moving.kl.coefficient, self._moving.stage = coefficient, int(stage)
        return used | {_STATE}


class ReinforceMethod(AlignMethod):
    """Rollouts of the policy as it is, pure in seed and step, are the batches."""

    alignment: Reinforcement

    @functools.cached_property
    def moving(self) -> Moving:
        """What moves beside the weights."""
        return Moving(self.alignment)

    def prepare(self, settings: RunSettings, tell: Tell) -> tuple[RunSettings, RunData]:
        """Read the prompts; fill in the batch size and what is sampled on."""
        data = self._prompts(tell)
        train: dict[str, Any] = {"batch_size": self.alignment.learnt_rows}
        if settings.train.prompts == TrainSettings().prompts:
            train["prompts"] = tuple(data.valid[:_SHOWN])
        filled = settings.train.model_copy(update=train)
        return settings.model_copy(update={"train": filled}), data

    def _prompts(self, tell: Tell) -> PromptData:
        own = self.alignment
        train, valid, corpus = "", "", Corpus()
        with contextlib.suppress(CoterieError) if own.prompts else contextlib.nullcontext():
            train, valid = self._texts(tell)
            corpus = Corpus(lambda: train)
        longest = self.base.decoder.settings.context // 2
        if own.prompts is None:
            prompts = prompts_of_text(train, own.prompt_lines, longest)
        else:
            prompts = read_prompts(Path(own.prompts))
        human: list[Sample] = []
        if own.held_out is not None:
            held = read_prompts(Path(own.held_out))
        elif own.prompts is not None:
            kept = max(len(prompts) * 9 // 10, 1)
            prompts, held = prompts[:kept], prompts[kept:]
        else:
            held = prompts_of_text(valid, own.prompt_lines, longest)
        held = spread(held, own.judged_texts)
        if own.prompts is None and own.held_out is None:
            human = [Sample(each, following(valid, each)) for each in held]
        if not prompts:
            raise DataError(
                "The run's text has no lines to write on.",
                hint="Give a file of prompts: align.prompts=prompts.jsonl",
            )
        asked = max(len(self.tokenizer.encode(each)) for each in (*prompts, *held))
        require_room(asked, own.rollout.max_tokens, self.base.decoder.settings.context)
        return PromptData(self.tokenizer, prompts, held, corpus, human)

    def _texts(self, tell: Tell) -> tuple[str, str]:
        """Return the training text of the run that all began from, and the held-out one."""
        settings = self.base.settings
        while earlier := settings.get("align"):  # a tuned run has rows or prompts, and no text
            settings = load_model(earlier["base"]).settings
        kept = validated(RunSettings, settings, CONFIG, CheckpointError)
        store = store_for(kept.data, kept.tokenizer, cache_root(), notify=tell)
        parts = {"train": "", "valid": ""}
        for source in store.sources.values():
            for split in parts:
                parts[split] += text_of(source.tokenizer, source.tokens(split)[:])
        return parts["train"], parts["valid"]

    def begin(self, decoder: Decoder, data: RunData, tell: Tell) -> None:
        """Put the base's weights into the decoder, which stays in evaluation mode."""
        super().begin(decoder, data, tell)
        if decoder.value is not None:
            for parameter in decoder.value.parameters():
                parameter.data.zero_()  # nothing is expected before anything was seen
        decoder.eval()
        self._module = decoder

    def trainable(self, decoder: Decoder) -> Trainable:
        """Return what moves, and β and the course beside it."""
        return PolicyTrainable(super().trainable(decoder), self.moving)

    def objective(self, settings: RunSettings) -> Objective:
        """Return the clipped objective with its terms."""
        own = self.alignment
        value, value_clip = own.value_terms()
        in_loss = not own.critic  # else it is a cost of each token
        return ReinforceObjective(
            Weights(
                kl=lambda: self.moving.kl.coefficient if in_loss else 0.0,
                estimator=own.kl_estimator,
                entropy=own.entropy,
                value=value,
                low=own.clip_low,
                high=own.clip_high,
                value_clip=value_clip,
                temperature=own.rollout.temperature,
                replay=own.replay,
                sequence=own.sequence_ratio,
                imitates=own.imitates,
            )
        )

    def models(self, decoder: Callable[..., Output]) -> Models:
        """Return the policy and its module."""
        module = decoder if isinstance(decoder, Decoder) else self._module
        return PolicyModels(decoder, module)

    def memory(self, settings: RunSettings, parts: dict[str, int]) -> dict[str, int]:
        """Return the bytes by part: the reference lies beside the policy."""
        whole = sum(each.numel() * 4 for each in self.base.decoder.parameters())
        return {**super().memory(settings, parts), "reference": whole}

    def example(self, settings: RunSettings, data: RunData, device: torch.device) -> TokenBatch:
        """Return a batch of the usual shape, which says nothing."""
        own = self.alignment
        shape = (own.learnt_rows, min(settings.model.context, 2 * own.rollout.max_tokens))
        zeros, ones = torch.zeros(shape), torch.ones(shape)
        tokens = torch.zeros(shape, dtype=torch.long)
        values = {"values": zeros, "returns": zeros} if own.critic else {}
        return RolloutBatch(
            tokens, tokens, ones, share=torch.ones(own.learnt_rows), advantages=zeros, old=zeros,
            reference=zeros, written=zeros, **values,
        ).to(device)  # fmt: skip

    def loader(self, session: Session) -> Batches:
        """Return the rollouts of the run."""
        return Rollouts(self, session)

    def describe(self, session: Session, loader: Batches, tell: Tell) -> None:
        """Say what is written on, and what judges."""
        own, data = self.alignment, session.store
        assert isinstance(data, PromptData)
        kinds = ", ".join(f"{each.weight:g} × {kind_name(each)}" for each in own.rewards)
        tell(
            f"Each rollout writes {own.texts_per_prompt} texts on each of "
            f"{own.prompts_per_rollout} of {len(data.train):,} prompts; the reward is {kinds}. "
            f"{len(data.valid)} held-out prompts are judged."
        )

    def holds_out(self, data: RunData) -> bool:
        """Whether there are prompts that are only judged."""
        return isinstance(data, PromptData) and bool(data.valid)

    def evaluate(self, session: Session) -> list[Evaluated]:
        """Judge texts on held-out prompts, raise alarms, and say what the text itself costs."""
        data = session.store
        assert isinstance(data, PromptData)
        if not data.valid:
            return []
        rollouts = self._rollouts(session)
        figures = rollouts.judged()
        human = figures_of(data.human, data.corpus, None) if data.human else {}
        step = session.progress.step
        session.publish(
            HeldOutJudged(step=step, texts=len(data.valid), figures=figures, human=human,
                          start=rollouts.start)
        )  # fmt: skip
        found = alarms(step, figures, rollouts.start, human)
        for alarm in found:
            session.publish(alarm)
        self._halt(figures, len(found))
        return self._read_on(session, data)

    def _read_on(self, session: Session, data: PromptData) -> list[Evaluated]:
        """Return how well the policy still predicts the held-out text itself, where it is known."""
        if not data.human:
            return []
        began = time.perf_counter()
        texts = [session.tokenizer.encode(each.prompt + each.text) for each in data.human]
        with session.precision.autocast():
            found = torch.cat(sequence_logprobs(session.decoder, texts))
        return [
            Evaluated(
                step=session.progress.step,
                split="valid",
                loss=-float(found.mean()),
                tokens=len(found),
                seconds=time.perf_counter() - began,
            )
        ]

    def _halt(self, figures: dict[str, float], count: int) -> None:
        own = self.alignment
        if own.stop_kl is not None and figures.get("kl", 0.0) > own.stop_kl:
            self.halted = f"the KL of {figures['kl']:.3f} is above align.stop_kl={own.stop_kl:g}"
        if own.stop_alarms is not None and count >= own.stop_alarms:
            self.halted = f"{count} alarms, and align.stop_alarms={own.stop_alarms}"

    def _rollouts(self, session: Session) -> Rollouts:
        if self._written is None:
            self._written = Rollouts(self, session)
        return self._written

    _written: Rollouts | None = None


class Rollouts(contextlib.AbstractContextManager["Rollouts"]):
    """Rollout n serves the steps from n·updates on; it is kept in a file while it is needed."""

    def __init__(self, method: ReinforceMethod, session: Session) -> None:
        own, data = method.alignment, session.store
        assert isinstance(data, PromptData)
        self._own, self._data, self._session = own, data, session
        self._moving = method.moving
        self._judge = Judge(own.rewards, data.corpus)
        self._reference = method.reference(session.precision.device)
        self._collector = self._collecting(session.decoder)

    def _collecting(self, decoder: Decoder) -> Collector:
        writer = Writer(decoder, self._data.tokenizer, self._own.rollout, _AT_ONCE)
        autocast = self._session.precision.autocast
        return Collector(self._own, decoder, self._reference, writer, self._judge, autocast)

    def iterate(self, start: int = 0, ready: int = 1) -> Iterator[TokenBatch]:
        """Yield the batch of each step; a rollout is written when its first step comes."""
        updates, step = self._own.updates, start
        batch: RolloutBatch | None = None
        while True:
            if step % updates == 0:
                batch = self._written(step)
            elif batch is None:
                batch = RolloutBatch.load(self._file(step), self._session.precision.device)
            yield batch
            step += 1

    def _written(self, step: int) -> RolloutBatch:
        own, session, number = self._own, self._session, step // self._own.updates
        seed = session.settings.seed
        prompts = drawn(self._data.train, own.prompts_per_rollout, seed, number)
        course, beta = self._course(step), self._moving.kl.coefficient
        found = self._collector.collect(prompts, seed + number * own.rows, step, course, beta)
        session.publish(found.done)
        self._moving.kl.observe(found.done.figures.get("kl", 0.0))
        first = next(iter(found.scores.parts.values()))
        reached = sum(first) / len(first) >= own.advance
        if reached and self._moving.stage + 1 < len(own.lines):
            self._moving.stage += 1
        if own.updates > 1:
            found.batch.save(self._file(step))
            self._forget(step)
        return found.batch

    def _course(self, step: int) -> Course:
        """Return how long texts are now."""
        own = self._own
        lines = own.lines[self._moving.stage]
        if own.lengths is None:
            return Course(own.rollout.max_tokens, lines)
        first, then = own.lengths
        part = min(2 * step / max(self._session.settings.train.steps, 1), 1.0)
        return Course(round(first + (then - first) * part), lines)

    def _file(self, step: int) -> Path:
        first = step // self._own.updates * self._own.updates
        return self._session.run.path / "rollouts" / f"step-{first:08d}.safetensors"

    def _forget(self, step: int) -> None:
        """Remove rollouts in whose steps no checkpoint lies."""
        kept = {
            self._file(step_of(path)) for path in list_checkpoints(self._session.run.checkpoints)
        }
        kept.add(self._file(step))
        for path in self._file(step).parent.glob("step-*.safetensors"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def judged(self) -> dict[str, float]:
        """Return the figures of texts on held-out prompts by the policy as it is."""
        return self._figures(self._collector)

    @functools.cached_property
    def start(self) -> dict[str, float]:
        """The same figures of the reference."""
        return self._figures(self._collecting(self._reference))

    def _figures(self, collector: Collector) -> dict[str, float]:
        course = self._course(self._session.settings.train.steps)
        _, batch, samples, scores = collector.judged(self._data.valid, 1, _HELD_OUT_SEED, course)
        found = figures_of(samples, self._data.corpus, scores)
        if batch.reference is not None and batch.written is not None:
            difference = (batch.written - batch.reference).sum() / batch.valid.sum()
            found["kl"] = float(difference)
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def text_of(tokenizer: Tokenizer, tokens: np.ndarray) -> str:
    """Return the text of documents, a blank line in place of what ends each."""
    ends = np.isin(tokens, sorted(tokenizer.ends))
    parts = np.split(tokens, np.flatnonzero(ends))
    return "\n\n".join(tokenizer.decode(part[~np.isin(part, sorted(tokenizer.ends))])
                       for part in parts)  # fmt: skip


def following(text: str, prompt: str) -> str:
    """Return the line that stands after a prompt in a text."""
    at = text.find(prompt)
    return text[at + len(prompt) :].split("\n", 1)[0] + "\n" if at >= 0 else ""


def kind_name(reward: object) -> str:
    """Return the kind of a reward."""
    return str(getattr(reward, "kind", type(reward).__name__))
