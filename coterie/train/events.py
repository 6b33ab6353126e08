"""What happens in a run, as typed events: the truth that every view reads.

Counts are totals since the run began unless a field says otherwise. Nothing here imports torch, so
that a run can be looked at without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from coterie.foundation.events import Count, Event, Number

LEAST_SEEN = 3
"""Tokens of a kind that must have been read before it is called an expert's favourite."""


class RunStarted(Event):
    """A run began or, with `resumed_from`, went on from a checkpoint."""

    kind: Literal["run_started"] = "run_started"
    name: str
    preset: str
    parameters: Count
    active_parameters: Count
    steps: Count
    epochs: Count | None = None  # passes over the training text, where the run is told in them
    epoch_steps: Count | None = None  # steps of one
    tokens_per_step: Count
    device: str
    precision: str
    machine: dict[str, str | Count | Number] = {}
    peak_flops: Number | None = None  # measured matrix-product rate, FLOP/s; MFU's ceiling
    resumed_from: Count | None = None
    training: str | None = None  # what all checkpoints of one training carry
    config_sha256: str | None = None  # of config.yaml as this start wrote it

    def epoch_at(self, step: int) -> str:
        """Return “epoch 3 of 10”, the one that a step belongs to; nothing where none are told."""
        if not self.epochs or not self.epoch_steps:
            return ""
        epoch = min(max(-(-step // self.epoch_steps), 1), self.epochs)
        return f"epoch {epoch:,} of {self.epochs:,}"


class StepDone(Event):
    """One optimizer step. `seconds` is the step's own time, without evaluation and saving."""

    kind: Literal["step"] = "step"
    step: Count
    loss: Number  # mean nats per token, cross-entropy alone
    learning_rate: Number
    gradient_norm: Number  # before clipping
    tokens: Count
    seconds: Number
    tokens_per_second: Number
    mfu: Number | None = None  # fraction of `peak_flops`, active parameters only
    memory_bytes: Count | None = None
    auxiliary: dict[str, Number] = {}
    sources: dict[str, Number] | None = None  # the loss of each mixed source's rows

    def numbers(self) -> dict[str, float]:
        numbers = {
            "train/loss": self.loss,
            "train/learning_rate": self.learning_rate,
            "train/gradient_norm": self.gradient_norm,
            "speed/tokens_per_second": self.tokens_per_second,
            "speed/step_seconds": self.seconds,
        }
        if self.mfu is not None:
            numbers["speed/mfu"] = self.mfu
        if self.memory_bytes is not None:
            numbers["memory/bytes"] = float(self.memory_bytes)
        numbers |= {f"train/{name}/loss": value for name, value in (self.sources or {}).items()}
        # Metrics that have a name of the field, rewards/margins say, keep it.
        named = ((name if "/" in name else f"auxiliary/{name}", value)
                 for name, value in self.auxiliary.items())  # fmt: skip
        return numbers | dict(named)


class LayerLoad(BaseModel):
    """How one layer routed: tokens that chose each expert, how many were dropped, the rest.

    `entropy` is of the router's shares, in nats, averaged over tokens: 0 where it is certain, log E
    where it is undecided. `bias` is the selection bias.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    layer: Count
    load: tuple[Count, ...]
    dropped: Count = 0
    bias: tuple[Number, ...] | None = None
    entropy: Number | None = None

    @property
    def imbalance(self) -> float:
        """The busiest expert's load over the mean load: 1 is even; NaN where no token came."""
        total = sum(self.load)
        return max(self.load) * len(self.load) / total if total else math.nan


class LoadMeasured(Event):
    """Load per expert and layer, summed over the latest `steps` steps."""

    kind: Literal["load"] = "load"
    step: Count
    steps: Count
    layers: tuple[LayerLoad, ...]

    def numbers(self) -> dict[str, float]:
        return {
            f"{name}/layer_{each.layer}{kind}": value
            for each in self.layers
            for name, kind, value in (
                ("load", "_max_over_mean", each.imbalance), ("router_entropy", "", each.entropy),
            )
            if value is not None
        }  # fmt: skip


class ExpertWatched(BaseModel):
    """What one expert drew of the tokens of one look.

    `weight` is the sum of its weights over an even share, `position` the mean place of its tokens
    in their window (0 the first, 1 the last). `favourites` are tokens that it draws more of than
    of others: number, times seen, lift (its share of the token's weight over its share of all);
    `partners` other experts: number, lift (how often both were selected over how often they would
    be if each were independent of the other).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    weight: Number
    position: Number
    favourites: tuple[tuple[Count, Count, Number], ...] = ()
    partners: tuple[tuple[Count, Number], ...] = ()


class LayerWatched(BaseModel):
    """What one layer did to the tokens of one look; a dense layer has norms alone.

    `residual` is the mean norm of the stream after the layer, `attention` and `feedforward` those
    of what the branches returned. `load` counts tokens by expert. `entropy` is that of the router's
    shares, in nats; `margin` the median of how far a selection was from another one, `margin_low`
    what a tenth of them fall short of. `token` and `position` are the mutual information, in nats,
    of a token's expert with what it is and with which eighth of the window it stands in; beside
    them what the same labels dealt at random give.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    layer: Count
    residual: Number
    attention: Number
    feedforward: Number
    load: tuple[Count, ...] = ()
    entropy: Number | None = None
    margin: Number | None = None
    margin_low: Number | None = None
    token: Number | None = None
    token_null: Number | None = None
    position: Number | None = None
    position_null: Number | None = None
    experts: tuple[ExpertWatched, ...] = ()


class RoutingWatched(Event):
    """A look into routers and stream on `tokens` of a step's own; `words` names tokens once."""

    kind: Literal["routing"] = "routing"
    step: Count
    tokens: Count
    layers: tuple[LayerWatched, ...]
    words: dict[Count, str] = {}

    def numbers(self) -> dict[str, float]:
        return {
            f"routing/layer_{each.layer}/{name}": value
            for each in self.layers
            for name in ("residual", "margin", "token", "token_null", "position", "position_null")
            if (value := getattr(each, name)) is not None
        }


class PartMeasured(BaseModel):
    """How one part of the model learns: norms over all its parameters together.

    The gradient's is before clipping, the weights' before the step; what weight decay takes is in
    the update. Of tensors with more than 65,536 values the latter two are estimated.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    part: str
    parameters: Count
    gradient_norm: Number
    weight_norm: Number
    update_norm: Number

    @property
    def update_ratio(self) -> float:
        """How far the step moved the weights, over how large they were; NaN where they were 0."""
        return self.update_norm / self.weight_norm if self.weight_norm else math.nan


class PartsMeasured(Event):
    """Gradients and updates of one step, part by part."""

    kind: Literal["parts"] = "parts"
    step: Count
    parts: tuple[PartMeasured, ...]

    def numbers(self) -> dict[str, float]:
        gradients = {f"gradient_norm/{each.part}": each.gradient_norm for each in self.parts}
        return gradients | {
            f"update_over_weight/{each.part}": each.update_ratio
            for each in self.parts
            if each.weight_norm
        }


class RankMeasured(BaseModel):
    """What one of several processes came to over some steps.

    `waiting` is the share of its time that went on messages and on waiting for them; None where
    it is a device that waits. `seconds` is a step's mean time.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    rank: Count
    seconds: Number
    memory_bytes: Count | None = None  # the most it held so far
    waiting: Number | None = None


class RanksMeasured(Event):
    """The processes of a run over the latest `steps` steps; all wait for the `straggler`."""

    kind: Literal["ranks"] = "ranks"
    step: Count
    steps: Count
    ranks: tuple[RankMeasured, ...]
    straggler: Count | None = None

    def numbers(self) -> dict[str, float]:
        return {
            f"ranks/{each.rank}/{name}": value
            for each in self.ranks
            for name in ("memory_bytes", "waiting")
            if (value := getattr(each, name)) is not None
        }


class MicroBatchChanged(Event):
    """From this step on a batch was computed in another number of pieces.

    `pressure` is the share of the memory in use after the step before; None where no reading was
    followed: that step's memory did not suffice, or the rows of a batch changed.
    """

    kind: Literal["micro_batch"] = "micro_batch"
    step: Count
    pieces: Count
    rows: Count  # of each
    pressure: Number | None = None

    def numbers(self) -> dict[str, float]:
        return {"memory/micro_batch_rows": float(self.rows)}


class DataDescribed(Event):
    """What the run reads; see `data.batches.Mixture`."""

    kind: Literal["data"] = "data"
    lengths: dict[str, list[Count]]
    steps: list[Count]
    shares: dict[str, list[Number]]


class Evaluated(Event):
    """Loss over a whole split. `characters` is how many characters the tokens stand for."""

    kind: Literal["evaluated"] = "evaluated"
    step: Count
    split: str
    loss: Number  # mean nats per token
    tokens: Count
    characters: Count | None = None
    seconds: Number

    @classmethod
    def together(cls, split: str, parts: Sequence[Evaluated]) -> Evaluated:
        """Return one evaluation of several splits at the same step, each token of them alike."""
        tokens = sum(part.tokens for part in parts)
        characters = [part.characters for part in parts if part.characters is not None]
        mean = sum(part.loss * part.tokens for part in parts) / tokens
        return cls(
            step=parts[0].step,
            split=split,
            loss=mean if len(parts) > 1 else parts[0].loss,  # to the last bit
            tokens=tokens,
            characters=sum(characters) if len(characters) == len(parts) else None,
            seconds=sum(part.seconds for part in parts),
        )

    @property
    def nats_per_character(self) -> float | None:
        """The loss per character, comparable between tokenizers."""
        return self.loss * self.tokens / self.characters if self.characters else None

    def numbers(self) -> dict[str, float]:
        numbers = {f"{self.split}/loss": self.loss}
        if self.nats_per_character is not None:
            numbers[f"{self.split}/nats_per_character"] = self.nats_per_character
        return numbers


class Sampled(Event):
    """Text that the model generated."""

    kind: Literal["sampled"] = "sampled"
    step: Count
    prompt: str
    text: str


class CheckpointSaved(Event):
    """A checkpoint is complete on the disk."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: Count
    path: str
    bytes: Count
    seconds: Number  # until it was whole
    stood: Number | None = None  # of them, how long the steps stood still for it


class CheckpointDamaged(Event):
    """A checkpoint was found damaged and passed over."""

    kind: Literal["checkpoint_damaged"] = "checkpoint_damaged"
    path: str
    problem: str


class ProfiledPart(BaseModel):
    """Seconds per step of one part of the model or of the step."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    forward: Number
    backward: Number


class ProfiledOperation(BaseModel):
    """One operation within a part: calls and seconds per step, without what it calls."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    part: str
    name: str
    backward: bool
    calls: Number
    seconds: Number


class StepsProfiled(Event):
    """Where the time of some steps went; dearest first, all times per step."""

    kind: Literal["steps_profiled"] = "steps_profiled"
    step: Count
    steps: Count
    seconds: Number  # wall clock
    on_device: bool  # whether parts and operations count the device's time, not the processor's
    trace: str
    parts: tuple[ProfiledPart, ...]
    operations: tuple[ProfiledOperation, ...]


class MemoryPart(BaseModel):
    """Bytes of one part of the model or of the step.

    `allocated` is what it was given over the whole step; the others are what it held at the moment
    of each phase when all parts together held most.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    allocated: Count
    forward: Count
    backward: Count
    update: Count


class MemoryProfiled(Event):
    """Where the memory of one step went; parts in the order of what they hold at its peak.

    `process_bytes` is the process's resident memory after the step on a CPU, and what torch's
    allocator has reserved on a GPU.
    """

    kind: Literal["memory_profiled"] = "memory_profiled"
    step: Count
    parts: tuple[MemoryPart, ...]
    on_device: bool  # whether it is a GPU's memory
    process_bytes: Count | None = None
    snapshot: str | None = None  # for torch's memory viewer

    @property
    def peak_phase(self) -> Literal["forward", "backward", "update"]:
        """The phase of the step in which most was held."""
        sums = {
            "forward": sum(each.forward for each in self.parts),
            "backward": sum(each.backward for each in self.parts),
            "update": sum(each.update for each in self.parts),
        }
        return max(sums, key=lambda phase: sums[phase])  # type: ignore[arg-type,return-value]

    def at_peak(self) -> dict[str, int]:
        """Return the bytes of each part at the moment when all together held most."""
        return {each.name: getattr(each, self.peak_phase) for each in self.parts}

    def numbers(self) -> dict[str, float]:
        return {f"memory_by_part/{name}": float(held) for name, held in self.at_peak().items()}


class RunEnded(Event):
    """The run ended; `seconds` is the wall-clock time since it began or was resumed."""

    kind: Literal["run_ended"] = "run_ended"
    step: Count
    status: Literal["finished", "interrupted", "failed"]
    message: str = ""
    seconds: Number
