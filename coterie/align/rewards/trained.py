"""A reward model that was trained on pairs: `coterie align reward-model`."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from coterie.align.reward_model import RewardReader
from coterie.align.rewards.interface import Corpus, Reward, RewardError, RewardSettings, Sample
from coterie.checkpoint import load_model
from coterie.foundation.errors import CoterieError


class Trained(RewardSettings):
    """What a reward model says of a text; only differences between texts on a prompt count."""

    kind: Literal["model"] = "model"
    run: str = Field(description="the reward model: a run's name, `latest`, or a path")

    unit = "log-odds"
    low, high = float("-inf"), float("inf")

    def build(self, corpus: Corpus) -> Reward:
        """Return what reads texts with the model.

        Raises:
            CheckpointError: there is no such run, or it is no reward model.
        """
        reader = RewardReader(load_model(self.run))

        def judge(samples: Sequence[Sample]) -> list[float]:
            try:
                return reader([(each.prompt, each.text) for each in samples])
            except CoterieError as error:
                raise RewardError(f"The reward model {self.run}: {error.message}") from error

        return judge
