"""A made-up run, the same at every call: events as a real trainer would write them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.foundation.event_log import EventLog
from coterie.foundation.events import Event, Notice
from coterie.foundation.runs import RunDirectory
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    Evaluated,
    ExpertWatched,
    LayerLoad,
    LayerWatched,
    LoadMeasured,
    PartMeasured,
    PartsMeasured,
    RoutingWatched,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)

TOKENS_PER_STEP = 2048
BEGAN = 1_790_000_000.0
START = RunStarted(
    name="quickstart-3", preset="quickstart", parameters=2_134_912, active_parameters=887_552,
    steps=400, tokens_per_step=TOKENS_PER_STEP, device="cpu", precision="float32",
    peak_flops=3.1e11,
    machine={"processor": "a 2-core processor", "cores": 2, "memory_bytes": 8_400_000_000,
             "python": "3.11.2", "torch": "2.13.0"},
)  # fmt: skip

CONFIG = """\
description: The first five minutes on a small machine.
seed: 1337  # any whole number
data:
  source: shakespeare
  split: tail
  valid_fraction: 0.1
tokenizer:
  kind: characters
model:
  layers: {layers}
  width: 128
  context: 128
  position: {{kind: rotary, theta: 10000.0}}
  feedforward:
    kind: moe
    experts:
      - mlp: {{kind: gated, width: 192}}
        count: {experts}
    experts_per_token: 2
    balance: {{kind: bias, rate: 0.001}}
train:
  steps: {steps}
  learning_rate: {learning_rate}
  compile: false
"""

SAMPLES = (
    ("", "ROMEO:\nq;Wk&e tTzn,\nhs3  oae iXvlr.tn\n\ndhe-JJot,aa  sw!Mbec?ii\nre o 'Qun htLsd"),
    ("", "ROMEO:\nThe whe the mour the me the sor,\nAnd thit ho fard wis and the thes\nI the me."),
    (
        "ROMEO:\n",
        "ROMEO:\nWhat is the heart and the sweet soul of men,\nThat I should be the word of "
        "all the king,\nAnd not the breath that would have made me so.\n\nJULIET:\nO, my lord!",
    ),
    (
        "<ACT>III</ACT>\n<SCENE>2. A room in the castle</SCENE>\n",
        "<STAGE>Enter HAMLET and two Players</STAGE>\n<SPEAKER>HAMLET</SPEAKER>\n"
        "Speak soft, and let the season of the night\nAttend the tongue; for I have heard of "
        "kings\nThat lost a crown for want of one good word.\n<SPEAKER>FIRST PLAYER</SPEAKER>\n"
        "We'll mend it, my good lord, and mark the verse.\n<STAGE>Exeunt</STAGE>\n<SPEAKER>",
    ),
)


def _loss(step: int, steps: int, floor: float) -> float:
    return (
        floor
        + (4.2 - floor) * math.exp(-step / (steps * 0.02)) * 0.55
        + (4.2 - floor) * 0.45 * (1 + step / (steps * 0.03)) ** -1.1
    )


def _load(rng: random.Random, share: float, layer: int, experts: int) -> tuple[int, ...]:
    """Draw a load that is skewed at the beginning (share 0) and balanced at the end."""
    skew = 0.9 * math.exp(-share * 9) + 0.05
    taste = random.Random(layer)
    weights = [math.exp(skew * taste.gauss(0, 1) + rng.gauss(0, 0.02)) for _ in range(experts)]
    total = TOKENS_PER_STEP * 2 * 10
    return tuple(round(total * w / sum(weights)) for w in weights)


def make_events(
    steps: int = 400,
    layers: int = 4,
    experts: int = 8,
    *,
    seed: int = 1,
    floor: float = 1.42,
    every: int = 50,
    resume_at: int | None = None,
    finished: bool = True,
    dead: bool = False,
    name: str = "quickstart-3",
) -> list[Event]:
    """Return the events of a run. With `resume_at` it was interrupted and resumed there."""
    rng = random.Random(seed)
    clock = BEGAN
    start = START.model_copy(update={"time": clock, "name": name, "steps": steps})
    notice = Notice(time=clock, message="The token store was found in the cache.")
    events: list[Event] = [start, notice]
    for step in range(1, steps + 1):
        done = _step(rng, step, steps, floor)
        clock += done.seconds
        events.append(done.model_copy(update={"time": clock}))
        if layers and step % max(1, every // 5) == 0:
            measured = tuple(_layer(rng, n, step / steps, experts, dead) for n in range(layers))
            events.append(LoadMeasured(time=clock, step=step, steps=10, layers=measured))
            events.append(_parts(step).model_copy(update={"time": clock}))
        if step % every == 0 or step == steps:
            clock += 0.8
            events += _pause(step, steps, floor, clock)
        if step == resume_at:
            interrupted = "Interrupted from the keyboard."
            events.append(RunEnded(time=clock, step=step, status="interrupted",
                                   message=interrupted, seconds=clock - BEGAN))  # fmt: skip
            clock += 3600
            events += _resumption(start, step, f"checkpoints/step-{step + every:08d}", clock)
    if finished:
        events.append(RunEnded(time=clock, step=steps, status="finished", seconds=clock - BEGAN))
    return events


def _step(rng: random.Random, step: int, steps: int, floor: float) -> StepDone:
    seconds = 0.11 + abs(rng.gauss(0, 0.008)) + (0.15 if rng.random() < 0.01 else 0)
    warm = min(1.0, step / (steps * 0.05))
    norm = 0.4 + 1.6 * math.exp(-step / (steps * 0.1)) + abs(rng.gauss(0, 0.07))
    return StepDone(
        step=step,
        loss=_loss(step, steps, floor) + rng.gauss(0, 0.035),
        learning_rate=2e-3 * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))),
        gradient_norm=norm * (6 if step == steps // 3 else 1),
        tokens=step * TOKENS_PER_STEP,
        seconds=seconds,
        tokens_per_second=TOKENS_PER_STEP / seconds,
        mfu=TOKENS_PER_STEP / seconds * 6 * 887_552 / 3.1e11,
        memory_bytes=612_000_000,
        auxiliary={"router z-loss": 0.01 * math.exp(-step / steps) + rng.random() * 1e-4},
    )


def _layer(rng: random.Random, layer: int, share: float, experts: int, dead: bool) -> LayerLoad:
    """Return one layer's load; with `dead`, layer 1 has an idle expert and layer 0 drops tokens."""
    load = _load(rng, share, layer, experts)
    if dead and layer == 1:
        load = (*load[:-1], 0)
    first = _load(random.Random(7), 0.0, layer, experts)
    grown = 0.02 * (1 - math.exp(-share * 4))
    bias = tuple(grown * (1 - x * experts / sum(load)) for x in first)
    entropy = (0.9 - 0.1 * layer * share) * math.log(experts)
    dropped = 3 * (dead and layer == 0)
    return LayerLoad(layer=layer, load=load, dropped=dropped, bias=bias, entropy=entropy)


def _parts(step: int) -> PartsMeasured:
    """Return gradients and updates of two parts, which fall with the steps."""
    parts = [
        PartMeasured(part=name, parameters=1000, gradient_norm=size / step, weight_norm=10.0,
                     update_norm=size / step)
        for name, size in (("experts", 3.0), ("router", 0.2))
    ]  # fmt: skip
    return PartsMeasured(step=step, parts=tuple(parts))


def _pause(step: int, steps: int, floor: float, clock: float) -> list[Event]:
    """Return an evaluation, a sample and a checkpoint."""
    held_out = _loss(step, steps, floor) + 0.07 + 0.05 * step / steps
    prompt, text = SAMPLES[min(3, int(4 * step / (steps + 1) + 0.5))]
    path = f"checkpoints/step-{step:08d}"
    return [
        Evaluated(time=clock, step=step, split="valid", loss=held_out, tokens=111_540,
                  characters=111_540, seconds=0.8),
        Sampled(time=clock, step=step, prompt=prompt, text=text),
        CheckpointSaved(time=clock, step=step, bytes=25_700_000, seconds=0.05, path=path),
    ]  # fmt: skip


def _resumption(start: RunStarted, step: int, damaged: str, clock: float) -> list[Event]:
    problem = "model.safetensors is shorter than recorded"
    message = f"{damaged} is damaged; the one before it was used."
    return [
        CheckpointDamaged(time=clock, path=damaged, problem=problem),
        start.model_copy(update={"time": clock, "resumed_from": step}),
        Notice(time=clock, level="warning", message=message),
    ]


def write_run(root: Path, events: list[Event], name: str = "quickstart-3") -> RunDirectory:
    """Write events and a configuration as a run directory under `root`."""
    run = RunDirectory(root / name)
    run.path.mkdir(parents=True)
    loads = [event for event in events if isinstance(event, LoadMeasured)]
    steps = sum(isinstance(event, StepDone) for event in events)
    experts = len(loads[-1].layers[0].load) if loads else 0
    layers = len(loads[-1].layers) if loads else 2
    run.write_config(CONFIG.format(layers=layers, experts=experts, steps=steps,
                                   learning_rate=round(0.002 * layers, 4)))  # fmt: skip
    with EventLog(run.events) as log:
        for event in events:
            log.append(event)
    return run


@pytest.fixture
def synthetic() -> Callable[..., list[Event]]:
    """Return the maker of events."""
    return make_events


@pytest.fixture
def synthetic_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Return a maker of run directories; its arguments are those of the maker of events."""

    def make(**options) -> RunDirectory:
        name = options.get("name", "quickstart-3")
        return write_run(tmp_path / "runs", make_events(**options), name)

    return make


def make_look(step: int, words: dict[int, str] | None = None) -> RoutingWatched:
    """Return a look at a dense layer and one with two experts."""
    expert = ExpertWatched(weight=1.5, position=0.25, favourites=((7, 12, 3.25), (8, 3, 2.0)),
                           partners=((1, 1.75),))  # fmt: skip
    routed = LayerWatched(
        layer=1, residual=4.0 * step, attention=2.0, feedforward=1.0, load=(10, 20), entropy=0.5,
        margin=0.125, margin_low=0.01, token=0.75, token_null=0.05, position=0.02,
        position_null=0.015, experts=(expert, expert.model_copy(update={"weight": 0.5})),
    )  # fmt: skip
    dense = LayerWatched(layer=0, residual=2.0, attention=1.0, feedforward=1.0)
    return RoutingWatched(step=step, tokens=30, layers=(dense, routed), words=words or {})


@pytest.fixture
def look() -> Callable[..., RoutingWatched]:
    """Return the maker of looks into routing."""
    return make_look
