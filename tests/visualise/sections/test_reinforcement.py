"""The section of reinforcement, from its events alone."""

from coterie.align.reinforce.events import Alarm, HeldOutJudged, RolloutDone
from coterie.train.events import StepDone
from coterie.visualise.sections.header import header
from coterie.visualise.sections.reinforcement import reinforcement_section
from coterie.visualise.sections.training import loss_section
from coterie.visualise.series import Series

EVENTS = [
    *(RolloutDone(step=step, texts=4, tokens=80, seconds=1.0, figures={
        "reward": step / 10, "rewards/metre/mean": 0.5, "completions/mean_length": 20.0,
    }) for step in range(6)),
    *(StepDone(step=step, loss=0.0, learning_rate=1e-3, gradient_norm=1.0, tokens=80 * step,
               seconds=1.0, tokens_per_second=80.0,
               auxiliary={"policy/entropy": 1.0, "routing/agreement": 0.9}) for step in range(6)),
    HeldOutJudged(step=2, texts=4, figures={"metrical": 0.25}, human={"metrical": 0.86}),
    HeldOutJudged(step=4, texts=4, figures={"metrical": 0.5}, human={"metrical": 0.86},
                  start={"metrical": 0.125}),
    Alarm(step=4, figure="archaic<b>", value=0.5, bound=0.1, message="archaic words take over"),
]  # fmt: skip


def series_of(events):
    series = Series()
    for event in events:
        series.update(event)
    return series


def shown(events):
    return reinforcement_section(series_of(events))


def test_the_page_leads_with_the_reward_and_what_became_of_it_not_with_a_flat_loss():
    series = series_of(EVENTS)
    html = header(series)
    assert "The mean reward of rollouts went from " in html
    assert "Alarm at step 4: archaic&lt;b&gt; of held-out texts is 0.5" in html
    assert "training loss" not in html
    assert loss_section(series) == "", "there is nothing but the flat loss to draw"
    plain = series_of([event for event in EVENTS if isinstance(event, StepDone)])
    assert "training loss" in header(plain)
    assert "each step" in loss_section(plain) or loss_section(plain)


def test_it_shows_rewards_held_out_figures_and_alarms():
    html = shown(EVENTS)
    for wanted in ("Rewards of rollouts", "metre", "agreement", "archaic words take over"):
        assert wanted in html
    assert "archaic<b>" not in html
    table = html[html.index(">figure<") :]
    assert table.index("0.125") < table.index("0.500") < table.index("0.860"), "start, now, people"


def test_a_run_that_has_none_shows_nothing():
    assert shown([]) == ""
