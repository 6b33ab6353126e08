"""What a run of reinforcement tells: rollouts, held-out texts, alarms."""

from collections.abc import Sequence

from coterie.align.reinforce.events import Alarm, HeldOutJudged, RolloutDone
from coterie.foundation.events import Event
from coterie.train.events import StepDone
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Curves


class Reinforcement(Reducer):
    """Curves of the rollouts, of the steps' own figures, and of held-out texts."""

    kinds = (RolloutDone, StepDone, HeldOutJudged, Alarm)

    def __init__(self) -> None:
        self.rollouts, self.steps, self.held_out = Curves(), Curves(), Curves()
        self.alarms: Sequence[Alarm] = ()
        self.human: dict[str, float] = {}
        self.start: dict[str, float] = {}

    def update(self, event: Event) -> None:
        match event:
            case RolloutDone():
                self.rollouts.add(event.step, event.figures)
            case StepDone():
                told = {name: each for name, each in event.auxiliary.items() if "/" in name}
                if told:
                    self.steps.add(event.step, told)
            case HeldOutJudged():
                self.held_out.add(event.step, event.figures)
                self.human, self.start = event.human, event.start
            case Alarm():
                self.alarms = (*self.alarms, event)[-100:]
            case _:
                raise AssertionError(event)

    def rewind(self, step: int) -> None:
        for each in (self.rollouts, self.steps, self.held_out):
            each.rewind(step)
        self.alarms = tuple(each for each in self.alarms if each.step <= step)
