"""The steps from logits to the distribution that is drawn from, by name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from coterie.generate.sampling.candidates import Candidates
from coterie.generate.sampling.penalties import penalise_counts, penalise_repeats
from coterie.generate.sampling.settings import SamplingSettings, StepName
from coterie.generate.sampling.truncation import (
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)


class History(NamedTuple):
    """What was written so far.

    Attributes:
        past: all tokens, the prompt included.
        counts: how often each token was generated.
    """

    past: Sequence[int]
    counts: Float[np.ndarray, " V"]


Step = Callable[[Candidates, SamplingSettings, History], Candidates]


def _penalties(row: Candidates, given: SamplingSettings, history: History) -> Candidates:
    recent = history.past[-given.repetition_window :]
    row = penalise_repeats(row, recent, given.repetition_penalty)
    frequency, presence = given.frequency_penalty, given.presence_penalty
    return penalise_counts(row, history.counts, frequency, presence)


STEPS: dict[StepName, Step] = {
    "penalties": _penalties,
    "temperature": lambda row, given, _: apply_temperature(row, given.temperature),
    "top_k": lambda row, given, _: keep_top_k(row, given.top_k),
    "top_p": lambda row, given, _: keep_top_p(row, given.top_p),
    "min_p": lambda row, given, _: keep_min_p(row, given.min_p),
    "typical_p": lambda row, given, _: keep_typical(row, given.typical_p),
}
