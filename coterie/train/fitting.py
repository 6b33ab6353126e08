"""Settings with which a run fits into so much memory, and what each of them costs.

Knobs stand in the order of their cost. Of all that fits, that is taken whose dearest knob is turned
least, then the next dearest, and so on: another optimizer only where nothing else would do. Each
candidate is counted (`train/step_memory.py`), a second or two, so few are.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from coterie.train.choices import choose_precision
from coterie.train.flops import recomputing
from coterie.train.memory import estimate_memory
from coterie.train.optimizer import Adafactor, AdamW
from coterie.train.precision import Precision, has_bfloat16, resolve_device
from coterie.train.settings import RunSettings, TrainSettings

Words = tuple[str, ...]
_LIBRARIES = 300 << 20  # Python, torch and what they load, which the estimate does not see
_SHARE = 0.95  # of the rest, as what one operator holds inside itself is not seen either
_HELD = ("weights", "gradients", "optimizer", "average", "saving")


@dataclass(frozen=True)
class Candidate:
    """Settings that were counted.

    Attributes:
        words: `key=value` laid over the run; none: the run as it is.
        costs: what they cost, one for each setting that is changed.
        memory: estimated bytes by part of the model.
        fits: whether that leaves the reserve.
    """

    words: Words
    costs: Words
    memory: dict[str, int]
    fits: bool

    @property
    def memory_bytes(self) -> int:
        """All parts together."""
        return sum(self.memory.values())

    @property
    def groups(self) -> dict[str, int]:
        """Bytes of weights, gradients, optimizer and average, and of activations: all others."""
        held = {part: self.memory[part] for part in _HELD if part in self.memory}
        return {**held, "activations": self.memory_bytes - sum(held.values())}


@dataclass(frozen=True)
class Fitting:
    """What was counted to fit a run into memory.

    Attributes:
        limit: bytes of the device.
        device: where the run would compute; the estimate is of its kernels.
        candidates: what was counted, the cheapest first.
        proposal: the cheapest that fits; None: none does.
        left_out: what could not be tried here, and why.
    """

    limit: int
    device: str
    candidates: tuple[Candidate, ...]
    proposal: Candidate | None
    left_out: Words = ()

    @property
    def reserve(self) -> int:
        """Bytes of the limit that an estimate must leave."""
        return self.limit - usable(self.limit)

    @property
    def least(self) -> Candidate:
        """The candidate that takes least."""
        return min(self.candidates, key=lambda each: each.memory_bytes)

    @property
    def least_limit(self) -> int:
        """Bytes of the smallest device that it fits into."""
        return round(self.least.memory_bytes / _SHARE) + _LIBRARIES


def usable(limit: int) -> int:
    """Return how much of a device's bytes an estimate may take."""
    return round((limit - _LIBRARIES) * _SHARE)


def fit(change: Callable[[Words], RunSettings], limit: int) -> Fitting:
    """Return the cheapest settings with which a run fits into memory.

    Args:
        change: returns the run with `key=value` words laid over it, its vocabulary's size known.
        limit: bytes of the device.

    Raises:
        UserError: the run itself would be refused, or its device is not there.
    """
    search = _Search(change, usable(limit))
    proposal = search.cheapest()
    ordered = sorted(search.counted.items(), key=lambda each: each[0][::-1])
    precision = search.precision
    left: list[str] = []
    if precision.name == "float32" and not has_bfloat16(precision.device):
        left.append(f"bfloat16: this {precision.device.type.upper()} has no units for it")
    if isinstance(search.settings.train.optimizer, AdamW) and not _has_torchao():
        left.append('adamw8bit: pip install "coterie[torchao]"')
    candidates = tuple(each for _, each in ordered)
    return Fitting(limit, str(precision.device), candidates, proposal, tuple(left))


@dataclass(frozen=True)
class _Level:
    """One way to set a knob."""

    words: Words = ()
    cost: str = ""


_Knob = Sequence[_Level]
_AS_IS = _Level()


@dataclass
class _Search:
    change: Callable[[Words], RunSettings]
    usable: int
    counted: dict[tuple[int, ...], Candidate] = field(default_factory=dict)

    @cached_property
    def settings(self) -> RunSettings:
        """The run as it is."""
        return self.change(())

    @cached_property
    def precision(self) -> Precision:
        """Type of the run's products as it is."""
        return _precision(self.settings)

    @cached_property
    def knobs(self) -> list[_Knob]:
        """The cheapest first."""
        train, on_gpu = self.settings.train, self.precision.device.type == "cuda"
        return [
            [_AS_IS, *_pieces(train)],
            [_AS_IS, *_recomputing(self.settings), *_activations_away(train, on_gpu)],
            [_AS_IS, *_rounding(self.precision)],
            [_AS_IS, *_state_away(train, on_gpu), *_optimizers(train)],
        ]

    def cheapest(self) -> Candidate | None:
        """Return the cheapest that fits."""
        plain = self._at((0,) * len(self.knobs))
        if plain.fits:
            return plain
        chosen: tuple[int, ...] = ()
        for knob in reversed(range(len(self.knobs))):
            levels = range(len(self.knobs[knob]))
            found = (each for each in levels if self._can_fit(knob, (each, *chosen)))
            level = next(found, None)
            if level is None:
                return None
            chosen = (level, *chosen)
        return self._at(chosen)

    def _can_fit(self, knob: int, chosen: tuple[int, ...]) -> bool:
        """Whether a run fits when a knob and the dearer ones stand so and the cheaper may be full.

        A batch in one piece never holds all gradients beside activations, so it may hold less.
        """
        most = tuple(len(each) - 1 for each in self.knobs[:knob])
        whole = (0, *most[1:]) if most else ()
        return any(self._at((*below, *chosen)).fits for below in (most, whole))

    def _at(self, levels: tuple[int, ...]) -> Candidate:
        if levels not in self.counted:
            turned = [knob[level] for knob, level in zip(self.knobs, levels, strict=True)]
            words = tuple(word for each in turned for word in each.words)
            settings = self.change(words)
            memory = estimate_memory(settings, _precision(settings))
            costs = tuple(each.cost for each in turned if each.words)
            fits = sum(memory.values()) <= self.usable
            self.counted[levels] = Candidate(words, costs, memory, fits)
        return self.counted[levels]


def _precision(settings: RunSettings) -> Precision:
    return choose_precision(settings, resolve_device(settings.train.device))


def _pieces(train: TrainSettings) -> list[_Level]:
    """Return more micro-batches, each time at least twice as many, up to single rows."""
    levels, pieces, rows = [], train.gradient_accumulation, train.batch_size
    for more in range(pieces + 1, rows + 1):
        if rows % more == 0 and (more >= 2 * pieces or more == rows):
            cost = f"micro-batches of {rows // more}: time, where those leave the device idle"
            levels.append(_Level((f"train.gradient_accumulation={more}",), cost))
            pieces = more
    return levels


def _recomputing(settings: RunSettings) -> list[_Level]:
    """Return the ways to keep less for the backward pass than the run does."""
    most = f"x{1 + recomputing(settings):.2f} FLOPs"
    ways = {
        "selective": f"recomputes all but matrix products: less than {most}",
        "true": f"recomputes every block: {most}",
    }
    now = settings.train.activation_checkpointing
    left = [] if now is True else list(ways)[1 if now else 0 :]
    return [_Level((f"train.activation_checkpointing={way}",), ways[way]) for way in left]


def _activations_away(train: TrainSettings, on_gpu: bool) -> list[_Level]:
    if not on_gpu or train.offload.activations:
        return []
    words = ("train.activation_checkpointing=false", "train.offload.activations=true")
    return [_Level(words, "activations wait in host memory: time for copies, steps not recorded")]


def _state_away(train: TrainSettings, on_gpu: bool) -> list[_Level]:
    if not on_gpu or train.offload.optimizer:
        return []
    cost = "the optimizer's state waits in host memory: time for copies at each step"
    return [_Level(("train.offload.optimizer=true",), cost)]


def _has_torchao() -> bool:
    return importlib.util.find_spec("torchao") is not None


def _rounding(precision: Precision) -> list[_Level]:
    if precision.name != "float32" or not has_bfloat16(precision.device):
        return []
    return [_Level(("train.precision=bfloat16",), "products of 8 bits of precision: rounds more")]


def _optimizers(train: TrainSettings) -> list[_Level]:
    """Return optimizers that hold less; Adafactor with rates of its own, which mean another."""
    if isinstance(train.optimizer, Adafactor):
        return []
    key = "train.optimizer"
    levels = []
    if isinstance(train.optimizer, AdamW) and _has_torchao():
        cost = "moments of 8 bits: rounds them, and updates take longer"
        levels.append(_Level((f"{key}.kind=adamw8bit",), cost))
    words = (f"{key}=adafactor", f"{key}.learning_rate=0.01", f"{key}.weight_decay=0")
    cost = "another optimizer: CHANGES THE TRAINING ITSELF, and its rate has to be found"
    return [*levels, _Level(words, cost)]
