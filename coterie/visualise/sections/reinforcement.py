"""Reinforcement: rewards, how far the policy went, and what became of held-out texts."""

from html import escape

import numpy as np

from coterie.foundation.printable import printable
from coterie.visualise.charts import Chart
from coterie.visualise.figures import significant
from coterie.visualise.page import table
from coterie.visualise.reducers.curves import Curves, smooth
from coterie.visualise.reducers.reinforcement import Reinforcement
from coterie.visualise.sections.section import Section
from coterie.visualise.sections.training import by_name, resume_marks
from coterie.visualise.series import Series

_CHARTS = (
    ("Policy", "nats", "steps", ("policy/entropy", "kl/k1", "policy/approx_kl")),
    ("Clipped and routed", "share of tokens", "steps",
     ("clip_ratio/low", "clip_ratio/high", "routing/agreement")),
    ("Lengths", "tokens of a text", "rollouts",
     ("completions/min_length", "completions/mean_length", "completions/max_length")),
    ("Groups and ends", "share", "rollouts",
     ("frac_reward_zero_std", "completions/clipped_ratio")),
    ("Held-out texts", "share", "held_out",
     ("metrical", "monosyllables", "distinct_2", "archaic", "copied", "ended")),
)  # fmt: skip


def reinforcement_section(series: Series) -> str:
    state = series[Reinforcement]
    if not len(state.rollouts):
        return ""
    names = [name for name in state.rollouts.names if name.endswith("/mean")]
    rewards = {"reward": smooth(state.rollouts["reward"])}
    rewards |= {name.split("/")[1]: smooth(state.rollouts[name]) for name in names}
    marks = resume_marks(series)
    html = Chart(
        "Rewards of rollouts", "running mean", by_name(state.rollouts.steps, rewards),
        wide=True, marks=marks, note="The reward is the weighted sum; the others are as returned.",
    ).html()  # fmt: skip
    curves = {"steps": state.steps, "rollouts": state.rollouts, "held_out": state.held_out}
    for title, unit, source, wanted in _CHARTS:
        html += _chart(title, unit, curves[source], wanted, marks)
    return html + _held_out(state) + _alarms(state)


def _chart(
    title: str, unit: str, curves: Curves, names: tuple[str, ...], marks: list[tuple[float, str]]
) -> str:
    known = {name.split("/")[-1]: curves[name] for name in names if name in curves.names}
    return Chart(title, unit, by_name(curves.steps, known), marks=marks).html() if known else ""


def _held_out(state: Reinforcement) -> str:
    """Return a table of held-out texts: of the start, the latest, and how the text goes on."""
    rows = []
    for name in state.held_out.names:
        values = state.held_out[name]
        seen = values[np.isfinite(values)]
        if len(seen):
            known = [state.start.get(name), float(seen[-1]), state.human.get(name)]
            cells = [significant(each) if each is not None else "–" for each in known]
            rows.append([name, *cells])
    return table("Held-out texts", ["figure", "start", "latest", "the text itself"], rows)


def _alarms(state: Reinforcement) -> str:
    latest = {each.figure: each for each in state.alarms}
    items = "".join(
        f"<li>step {each.step:,}: {escape(printable(each.figure, ''))} is "
        f"{significant(each.value)}, the bound {significant(each.bound)}; "
        f"{escape(printable(each.message, ''))}</li>"
        for each in latest.values()
    )
    return f'<ul class="note">{items}</ul>' if items else ""


REINFORCEMENT = Section("reinforcement", "Reinforcement", (Reinforcement,), reinforcement_section)
