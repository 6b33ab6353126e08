"""Training: one loop, told as the story of one step.

In reading order: `settings` (what can be asked for), `session` (what a run needs, built from them),
`loop` (the story), `step` and `objective` (one step), `optimizer`, `schedule`, `clip`, `precision`,
`evaluation`, `samples`, `resume` (to a checkpoint and back), `monitor` (events, trackers), `plan`.
"""

from coterie.train.loop import TrainResult, train
from coterie.train.plan import Plan, plan
from coterie.train.settings import RunSettings, TrainSettings

__all__ = ["Plan", "RunSettings", "TrainResult", "TrainSettings", "plan", "train"]
