"""What happens in a run of reinforcement beside its steps, as typed events. No torch."""

from typing import Literal

from coterie.foundation.events import Count, Event, Number


class RolloutDone(Event):
    """Texts were written and judged; `step` is the first that learns from them.

    `figures` are named as TRL names them: `reward`, `reward_std` (of a group, on average),
    `frac_reward_zero_std`, `rewards/KIND/mean`, `completions/mean_length`, …
    """

    kind: Literal["rollout"] = "rollout"
    step: Count
    texts: Count
    tokens: Count
    seconds: Number
    figures: dict[str, Number]

    def numbers(self) -> dict[str, float]:
        rate = self.tokens / self.seconds if self.seconds else 0.0
        return self.figures | {"speed/rollout_tokens_per_second": rate}


class HeldOutJudged(Event):
    """Texts on prompts that are never trained on, judged by everything, rewarded or not.

    `start` has the same figures of the frozen start, `human` of how the held-out text goes on
    itself, where that is known.
    """

    kind: Literal["held_out_judged"] = "held_out_judged"
    step: Count
    texts: Count
    figures: dict[str, Number]
    human: dict[str, Number] = {}
    start: dict[str, Number] = {}

    def numbers(self) -> dict[str, float]:
        return {f"held_out/{name}": value for name, value in self.figures.items()}


class Alarm(Event):
    """Something that suggests that the reward is won and the text lost."""

    kind: Literal["alarm"] = "alarm"
    step: Count
    figure: str
    value: Number
    bound: Number
    message: str
