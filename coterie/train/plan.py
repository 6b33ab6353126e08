"""What a run would be, before it is one: counts, memory, operations and time, by formula.

The decoder is built without memory (torch's meta device), so a plan of any size takes a moment. The
time is an estimate: operations over the share of the measured matrix-product rate that small models
usually reach here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from coterie.model import count
from coterie.train.choices import choose_precision
from coterie.train.flops import step_flops
from coterie.train.machine import peak_flops
from coterie.train.memory import estimate_memory, shadow_parameters
from coterie.train.method import Method
from coterie.train.precision import resolve_device
from coterie.train.pretraining import fill_vocabulary_size
from coterie.train.settings import RunSettings

# Share of the ceiling that steps of small models reach; between 0.2 and 0.6 in practice.
_USUAL_SHARE = 0.35


@dataclass(frozen=True)
class Plan:
    """What a run would take.

    Attributes:
        parameters: of the whole decoder.
        active_parameters: multiplied for one token.
        vocab_size: rows of the embedding.
        steps: optimizer steps; None where the run is told in epochs of data not prepared yet.
        epochs: passes over the training text, if the run is told in them.
        tokens_per_step: tokens that one optimizer step reads, at full length.
        total_tokens: tokens of the whole run; None as the steps.
        lengths: how long rows are from which step on, if that changes.
        flops_per_step: operations of one step, forward, backward and the optimizer's products.
        memory: estimated bytes by part of the model, at the moment of a step when most are held.
        memory_bytes: their sum.
        device: where it would run.
        precision: the type of its matrix products.
        precision_reason: why that one.
        peak_flops: the measured ceiling, FLOP/s, if known.
        seconds: estimated time in training steps; None as the steps, or without a measured ceiling.
    """

    parameters: int
    active_parameters: int
    vocab_size: int
    steps: int | None
    epochs: int | None
    tokens_per_step: int
    total_tokens: int | None
    lengths: str
    flops_per_step: float
    memory: dict[str, int]
    memory_bytes: int
    device: str
    precision: str
    precision_reason: str
    peak_flops: float | None
    seconds: float | None

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


def plan(
    settings: RunSettings, *, vocab_size: int, measure: bool = True, method: Method | None = None
) -> Plan:
    """Return what a run of these settings would be.

    Args:
        settings: the run.
        vocab_size: tokens that its tokenizer knows; used where the model does not say.
        measure: whether to measure the machine's ceiling if that was never done.
        method: which may hold more in memory; None: text is trained on, from drawn weights.

    Raises:
        UserError: the settings do not fit together or the device is not there.
    """
    settings = fill_vocabulary_size(settings, vocab_size)
    train, model = settings.train, settings.model
    known = train.epochs is None or train.epoch_steps is not None
    # Of a run as long as any, where its length is not known: then it is not too short to measure.
    long = settings.model_copy(update={"train": train if known else train.with_epoch_of(1 << 20)})
    precision = choose_precision(long, resolve_device(train.device))
    parameters = shadow_parameters(model)
    counts = count(model)
    assert model.vocab_size is not None
    memory = estimate_memory(settings, precision)
    if method is not None:
        memory = method.memory(settings, memory)
    peak = peak_flops(precision, measure=False)
    if peak is None and measure:
        peak = peak_flops(precision)
    stages = settings.stages
    own = train.optimizer.flops(parameters)
    all_flops = sum((step_flops(settings, s) + own) * n for s, n in stages.until(train.steps))
    return Plan(
        parameters=counts.parameters,
        active_parameters=counts.active_parameters,
        vocab_size=model.vocab_size,
        tokens_per_step=stages.budget,
        steps=train.steps if known else None,
        epochs=train.epochs,
        total_tokens=stages.tokens(train.steps) if known else None,
        lengths=stages.told(train.steps) if known and len(stages.stages) > 1 else "",
        flops_per_step=step_flops(settings) + own,
        memory=memory,
        memory_bytes=sum(memory.values()),
        device=str(precision.device),
        precision=precision.name,
        precision_reason=precision.reason,
        peak_flops=peak,
        seconds=None if peak is None or not known else all_flops / (peak * _USUAL_SHARE),
    )
