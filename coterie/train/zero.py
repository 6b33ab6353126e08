"""A run that DeepSpeed divides (ZeRO): its configuration from ours, what moves, what is kept.

DeepSpeed's JSON says how parameters, gradients and moments are divided and where they wait; what is
trained and how is said by the run's own settings. Where both say something they must say the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from coterie.foundation.errors import CheckpointError, SettingsError, nearest
from coterie.model import Decoder
from coterie.parallel.together import Together
from coterie.parallel.zero import Zero
from coterie.train.clip import NoClip, NormClip
from coterie.train.events import PartMeasured
from coterie.train.method import Trainable
from coterie.train.monitor.parts import PartWatch
from coterie.train.optimizer import AdamW, RoleParameter
from coterie.train.optimizer.adamw import AdamWOptimizer
from coterie.train.settings import RunSettings

_FREE = (
    "zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
    "communication_data_type", "prescale_gradients", "gradient_predivide_factor",
    "wall_clock_breakdown", "memory_breakdown", "dump_state", "comms_logger", "steps_per_print",
)  # fmt: skip
_OTHERWISE = {
    "scheduler": "the learning rate over the steps is train.schedule's",
    "activation_checkpointing": "that is train.activation_checkpointing's",
    "amp": "the type of products is train.precision's",
    "torch_autocast": "the type of products is train.precision's",
    "flops_profiler": "coterie train … --profile tells where the time goes",
    "tensorboard": "that is train.trackers'",
    "wandb": "that is train.trackers'",
    "curriculum_learning": "that is data.curriculum's",
    "elasticity": "batches stay as they are; --max-restarts starts lost processes anew",
}
_NOT_TRIED = (
    "zero_quantized_weights", "zero_quantized_gradients", "zero_quantized_nontrainable_weights",
    "zenflow", "mics_shard_size", "zero_hpz_partition_size",
)  # fmt: skip
_MOMENTS = ("exp_avg", "exp_avg_sq")


def zero_config(settings: RunSettings, world: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a run, what it leaves to us (“auto”) filled in.

    Raises:
        SettingsError: it says otherwise than the run's settings, or wants what there is not here;
            everything is told.
    """
    assert settings.parallel is not None
    given = dict(settings.parallel.deepspeed or {})
    told = [*_refused(settings, given)]
    said: dict[str, Any] = {}
    for key, own in _ours(settings, world).items():
        *path, name = key.split(".")
        place = given
        for step in path:
            place = place.get(step) or {} if isinstance(place, Mapping) else {}
        value = place.get(name, "auto") if isinstance(place, Mapping) else "auto"
        if value != "auto" and not _same(value, own):
            told.append(f"{key} is {value!r} there; this run has {own!r}")
        said[key] = own
    if told:
        raise SettingsError(
            "DeepSpeed's configuration does not go with this run:\n"
            + "\n".join(f"  {each}" for each in told),
            hint="Write “auto” for what the run's own settings say, or leave it out.",
        )
    return _filled(settings, given, said)


def _ours(settings: RunSettings, world: int) -> dict[str, Any]:
    """Return what the run's settings say, by DeepSpeed's names."""
    train, found = settings.train, {}
    if isinstance(train.optimizer, AdamW):
        own = train.optimizer
        found = {
            "optimizer.type": "AdamW",
            "optimizer.params.lr": own.learning_rate,
            "optimizer.params.betas": [own.beta1, own.beta2],
            "optimizer.params.eps": own.epsilon,
            "optimizer.params.weight_decay": own.weight_decay,
            "optimizer.params.torch_adam": True,
            "optimizer.params.adam_w_mode": True,
        }
    limit = train.clip.max_norm if isinstance(train.clip, NormClip) else 0.0
    return found | {
        "train_batch_size": train.batch_size,
        "train_micro_batch_size_per_gpu": train.batch_size // train.gradient_accumulation // world,
        "gradient_accumulation_steps": train.gradient_accumulation,
        "gradient_clipping": limit if isinstance(train.clip, NormClip | NoClip) else "adaptive",
        "fp16.enabled": False,
        "bf16.enabled": False,
        "bfloat16.enabled": False,
    }


def _refused(settings: RunSettings, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what cannot be, whatever the other side says."""
    known = {key.partition(".")[0] for key in _ours(settings, 1)} | {*_FREE, "optimizer"}
    for key in given:
        if key not in known:
            why = _OTHERWISE.get(key) or f"nothing here reads it; {nearest(key, known)}"
            yield f"{key}: {why}"
    train, zero = settings.train, given.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, Mapping) else None
    if stage not in (1, 2, 3):
        yield f"zero_optimization.stage is {stage!r}; choices: 1, 2, 3 (none: leave it all out)"
    for key, place in zero.items() if isinstance(zero, Mapping) else ():
        if key in _NOT_TRIED:
            yield f"zero_optimization.{key}: losses would be others, or nobody tried it here"
        if isinstance(place, Mapping) and place.get("device", "cpu") not in ("cpu", "none"):
            yield f"zero_optimization.{key}.device is {place['device']!r}; choices: cpu, none"
    if not isinstance(train.optimizer, AdamW):
        yield (
            f"train.optimizer.kind={train.optimizer.kind}: DeepSpeed cuts parameters anywhere, and "
            "this needs them whole or keeps its moments otherwise; choose adamw"
        )
    if train.ema is not None:
        yield "train.ema: an average of divided weights is not kept"
    if train.precision == "float16":
        yield "train.precision=float16: choose float32 or bfloat16"


def _same(value: Any, own: Any) -> bool:
    if isinstance(own, list) and isinstance(value, list | tuple):
        return len(own) == len(value) and all(map(_same, value, own))
    if isinstance(own, float) and isinstance(value, int | float):
        return math.isclose(value, own, rel_tol=1e-12)
    return bool(value == own)


def _filled(
    settings: RunSettings, given: Mapping[str, Any], said: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the configuration as DeepSpeed gets it: the optimizer is handed over, made."""
    zero = {k: v for k, v in given["zero_optimization"].items() if v != "auto"}
    if given["zero_optimization"].get("reduce_bucket_size") == "auto":
        zero["reduce_bucket_size"] = settings.model.width**2
    own = {key: given[key] for key in _FREE if given.get(key, "auto") != "auto"}
    numbers = {key: value for key, value in said.items() if "." not in key}
    if numbers["gradient_clipping"] == "adaptive":
        numbers["gradient_clipping"] = 0.0
    return own | numbers | {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }  # fmt: skip


class ZeroTrainable(Trainable):
    """The decoder's parameters, of which DeepSpeed keeps what it likes where it likes."""

    recordable = False

    def __init__(self, decoder: Decoder, zero: Zero) -> None:
        for head in (decoder.value, decoder.pooled):
            for parameter in () if head is None else head.parameters():
                parameter.requires_grad_(False)  # no step of pretraining asks these for anything
        super().__init__(decoder)
        self._zero = zero

    def gradient(self, parameter: Tensor) -> Tensor | None:
        """Return the whole gradient of a parameter; all processes ask at once."""
        return self._zero.gradient(parameter)

    def scale(self, factor: float, norm: float) -> None:
        """Let DeepSpeed clip, which it does while it moves."""
        self._zero.held.clip_grad = factor * norm if factor != 1.0 else 0.0

    def watch(self, together: Together | None) -> PartWatch:
        """Return what measures gradients and updates part by part."""
        return _ZeroWatch(self._zero, self.parameters)

    def norms(self) -> list[tuple[Tensor, Tensor]]:
        """Return the norm that DeepSpeed finds, which every process knows."""
        return [(norm := self._zero.norm(), norm)]


class _ZeroWatch(PartWatch):
    """Measures while weights are whole."""

    def __init__(self, zero: Zero, parameters: Sequence[RoleParameter]) -> None:
        self._zero = zero
        with zero.whole():
            super().__init__(parameters, gradient=zero.gradient)

    def before(self, scale: float = 1.0) -> None:
        """Take note of the gradients and the weights."""
        with self._zero.whole():
            super().before(scale)

    def after(self) -> tuple[PartMeasured, ...]:
        """Return how large each part's gradient was, and how far its weights were moved."""
        with self._zero.whole():
            return super().after()


class ZeroOptimizer:
    """torch's AdamW, moved by DeepSpeed."""

    def __init__(self, adamw: AdamWOptimizer, trainable: ZeroTrainable, zero: Zero) -> None:
        self._adamw, self._zero = adamw, zero
        self._held = {each.name: each.tensor for each in trainable.parameters}
        self.learning_rate = adamw.learning_rate

    def step(self, step: int, multiplier: float) -> None:
        """Move the parameters along their gradients at `multiplier` times the peak rates."""
        self._adamw.set_rates(multiplier)
        self._zero.engine.step()

    def _counts(self) -> Iterator[Tensor]:
        """Yield the count of steps of each of DeepSpeed's pieces."""
        return (each["step"] for each in self._adamw.inner.state.values() if "step" in each)

    def state(self) -> dict[str, Tensor]:
        """Return moments and counts by parameter name, each on one of the processes."""
        count = next(self._counts(), None)
        if count is None:
            return {}
        found: dict[str, Tensor] = {}
        for key in _MOMENTS:
            moment = lambda name, key=key: self._zero.moment(self._held[name], key)  # noqa: E731
            for name, value in self._zero.shared(moment, self._held):
                found[f"adamw.{name}.{key}"] = value.clone()
                found[f"adamw.{name}.step"] = count.clone()
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> set[str]:
        """Take a whole state back; return the keys that were used.

        Raises:
            CheckpointError: its parameters have taken different numbers of steps.
        """
        keys = {f"adamw.{name}.{key}" for name in self._held for key in (*_MOMENTS, "step")}
        if not keys <= set(state):
            return set()
        counts = {float(state[f"adamw.{name}.step"]) for name in self._held}
        if len(counts) > 1:
            raise CheckpointError(
                f"The checkpoint's parameters have taken from {min(counts):g} to {max(counts):g} "
                "steps; DeepSpeed keeps one count for all.",
                hint="Go on without DeepSpeed (parallel.deepspeed=null).",
            )
        for name, parameter in self._held.items():
            for key in _MOMENTS:
                self._zero.set_moment(parameter, key, state[f"adamw.{name}.{key}"])
        for count in self._counts():
            count.fill_(counts.copy().pop())
        return keys


def start_zero(settings: RunSettings, zero: Zero) -> tuple[ZeroTrainable, ZeroOptimizer]:
    """Let DeepSpeed divide a decoder; return what moves, and what moves it."""
    config = zero_config(settings, zero.ranks.world)
    trainable = ZeroTrainable(zero.decoder, zero)
    adamw = settings.train.optimizer.build(trainable.parameters)
    assert isinstance(adamw, AdamWOptimizer)
    zero.start(config, adamw.inner)
    return trainable, ZeroOptimizer(adamw, trainable, zero)
