"""Pairs for preferences, made by a reward: the best and the worst of several texts on a prompt."""

import contextlib
from collections.abc import Iterator
from typing import Any

from coterie.align.reinforce.experience import Collector, Course
from coterie.align.reinforce.method import PromptData, ReinforceMethod
from coterie.align.reinforce.prompts import drawn
from coterie.align.reinforce.rollout import Writer
from coterie.align.rewards import Judge
from coterie.foundation.errors import DataError


def preference_pairs(
    method: ReinforceMethod, data: PromptData, count: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each prompt, in TRL's layout; nothing where all texts got the same.

    Rows have `prompt`, `chosen` and `rejected`, and what the last two got. Texts are judged with
    those of the same rollout; each is a function of the seed and its place.

    Args:
        count: of prompts, each taken once.

    Raises:
        DataError: there are not so many prompts.
        RewardError: a text cannot be judged.
    """
    own = method.alignment
    if count > len(data.train):
        raise DataError(
            f"There are {len(data.train):,} prompts, and {count:,} pairs are wanted.",
            hint="Ask for fewer: --count; or give more prompts: align.prompts=prompts.jsonl",
        )
    policy, number, size = method.reference(), own.texts_per_prompt, own.prompts_per_rollout
    writer = Writer(policy, data.tokenizer, own.rollout, size * number)
    needs = any(getattr(each, "kind", "") == "fluency" for each in own.rewards)
    judge = Judge(own.rewards, data.corpus)
    collector = Collector(
        own, policy, policy if needs else None, writer, judge, contextlib.nullcontext
    )
    prompts = drawn(data.train, count, seed, 0)
    for first in range(0, count, size):
        some = prompts[first : first + size]
        course = Course(own.rollout.max_tokens, own.lines[-1])
        _, _, samples, scores = collector.judged(some, number, seed + first * number, course)
        for place, prompt in enumerate(some):
            here = range(place * number, (place + 1) * number)
            best, worst = (
                max(here, key=scores.total.__getitem__),
                min(here, key=scores.total.__getitem__),
            )
            if scores.total[best] > scores.total[worst]:
                yield {
                    "prompt": prompt,
                    "chosen": samples[best].text,
                    "rejected": samples[worst].text,
                    "chosen_reward": scores.total[best],
                    "rejected_reward": scores.total[worst],
                }
