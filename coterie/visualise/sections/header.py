"""The head of the page: name, state, headline figures, and what asks for attention."""

import math
from html import escape
from pathlib import Path

import numpy as np

from coterie.foundation.printable import printable
from coterie.visualise.figures import count, duration, loss, percent, significant, times
from coterie.visualise.page import emblem, moment, tiles
from coterie.visualise.reducers.curves import smooth
from coterie.visualise.reducers.reinforcement import Reinforcement
from coterie.visualise.series import Series

STATUS_WORDS = {
    "finished": "finished",
    "interrupted": "interrupted",
    "failed": "failed",
    "running": "no end recorded",
}


def header(series: Series) -> str:
    """Return name, state, headline figures and whatever asks for attention."""
    start = series.start
    facts = [f"preset {start.preset}", start.device, start.precision] if start else []
    began = moment(series.starts[0].time) if series.starts else ""
    line = " · ".join([*(escape(printable(fact)) for fact in facts), *([began] if began else [])])
    return (
        f'<div class="title">{emblem()}<div><h1>{escape(printable(series.name))} '
        f'<span class="status {series.status}">{STATUS_WORDS[series.status]}</span></h1>'
        f"<p>{line}</p></div></div>{_summary(series)}{tiles(_headline_tiles(series))}"
        f"{_alerts(series)}"
    )


def _headline_tiles(series: Series) -> list[tuple[str, str, str]]:
    figures, start = series.headline(), series.start
    entries = []
    best = series.best
    if best:
        last = series.validation[-1]
        place = (
            f"best {loss(best.loss)} at step {best.step:,}" if best != last else "the best so far"
        )
        entries.append(("validation loss", loss(last.loss), f"nats per token; {place}"))
    per_character = figures["nats_per_character"]
    if isinstance(per_character, float):
        bits = per_character / math.log(2)
        entries.append(("nats per character", loss(per_character), f"{bits:.2f} bits"))
    rewards = _rewards(series)
    if rewards is None:
        entries.append(
            ("training loss", loss(figures["training_loss"]), "nats per token, smoothed")
        )
    else:  # a policy's loss is near zero by construction
        entries.append(
            ("reward", loss(rewards[-1]), f"of rollouts, smoothed; {loss(rewards[0])} at first")
        )
    planned = f"{figures['steps']:,} of {start.steps:,} steps" if start else ""
    if start and (epoch := start.epoch_at(figures["steps"])):
        planned += f", {epoch}"
    entries.append(("tokens seen", count(figures["tokens"]), planned))
    spent = duration(figures["training_seconds"])
    entries.append(("training time", spent, "without evaluating and saving"))
    mfu = f"median; {percent(figures['mfu'])} MFU" if figures["mfu"] is not None else "median"
    entries.append(("tokens per second", count(figures["tokens_per_second"]), mfu))
    if start:
        active = f"{count(start.active_parameters)} active per token"
        entries.append(("parameters", count(start.parameters), active))
    if series.layers:
        dead = f"busiest expert over mean; {figures['dead_experts']} dead"
        entries.append(("expert balance", times(series.imbalance), dead))
    return entries


def _rewards(series: Series) -> np.ndarray | None:
    """Return the running mean of the rollouts' rewards; None where nothing was reinforced."""
    rollouts = series[Reinforcement].rollouts
    return smooth(rollouts["reward"]) if len(rollouts) else None


def _summary(series: Series) -> str:
    """Return how the run went, in a sentence or two."""
    if not len(series.step):
        return '<p class="lead">No step has been recorded yet.</p>'
    sentences = []
    held_out = series.validation
    if len(held_out) > 1:
        sentences.append(
            f"In {duration(float(series.elapsed[-1]))} of training on "
            f"{count(int(series.tokens[-1]))} tokens, validation loss went from "
            f"{loss(held_out[0].loss)} to {loss(held_out[-1].loss)}."
        )
    if series.layers and series.imbalance is not None:
        total = sum(layer.load.shape[1] for layer in series.layers)
        share = f"The busiest of {total} experts takes {times(series.imbalance)} its even share"
        dead = series.dead_experts
        idle = "none is idle" if not dead else "one is idle" if dead == 1 else f"{dead} are idle"
        sentences.append(f"{share}; {idle}.")
    rewards = _rewards(series)
    if rewards is not None:
        sentences.append(
            f"The mean reward of rollouts went from {loss(rewards[0])} to {loss(rewards[-1])}."
        )
        alarms = {each.figure: each for each in series[Reinforcement].alarms}
        for each in alarms.values():
            sentences.append(
                f"Alarm at step {each.step:,}: {each.figure} of held-out texts is "
                f"{significant(each.value)}, beyond {significant(each.bound)}; {each.message}."
            )
    if series.ended and series.ended.status == "failed" and series.ended.message:
        sentences.append(f"It failed: {series.ended.message}")
    return f'<p class="lead">{escape(printable(" ".join(sentences)))}</p>'


def _alerts(series: Series) -> str:
    """Return warnings and damaged checkpoints as a short list with a link to the record."""
    warnings = [notice.message for notice in series.warnings]
    lines = [
        f"{d.path} is damaged: {d.problem}"
        for d in series.damaged
        if not any(Path(d.path).name in warning for warning in warnings)
    ]
    lines += [*series.complaints, *warnings]
    if not lines:
        return ""
    shown = "".join(f"<li>{escape(printable(line))}</li>" for line in lines[:4])
    more = f'<li><a href="#record">and {len(lines) - 4} more</a></li>' if len(lines) > 4 else ""
    return f'<ul class="alerts" aria-label="Warnings">{shown}{more}</ul>'
