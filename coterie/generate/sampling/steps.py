"""The steps from logits to the distribution that is drawn from, by name."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from coterie.generate.sampling.candidates import (
    Candidates,
    fewest,
    largest,
    log_probabilities,
    probabilities,
)
from coterie.generate.sampling.settings import SamplingSettings, StepName


def penalise_repeats(row: Candidates, recent: Sequence[int], penalty: float) -> Candidates:
    """Make the tokens in `recent` less likely (penalty > 1): once per distinct token.

    Positive logits are divided, negative ones multiplied, so that the logit always moves down
    (Keskar et al. 2019, “CTRL”, section 4.1, with the sign repaired).
    """
    if penalty == 1.0 or not recent:
        return row
    places = row.places(recent)
    logits = row.logits.copy()
    values = logits[places]
    logits[places] = np.where(values > 0, values / penalty, values * penalty)
    return row._replace(logits=logits)


def penalise_counts(
    row: Candidates, counts: Float[np.ndarray, " V"], frequency: float, presence: float
) -> Candidates:
    """Lower each logit by `frequency` for every time its token was generated, by `presence` once.

    The prompt does not count. The formula is that of OpenAI's API reference.

    Args:
        counts: how often each token of the vocabulary was generated.
        frequency: penalty for each time; negative values reward.
        presence: penalty for having been generated at all; negative values reward.
    """
    if frequency == 0 and presence == 0:
        return row
    times = row.of(counts).astype(row.logits.dtype)
    return row._replace(logits=row.logits - frequency * times - presence * (times > 0))


_TINY = 0.01  # a temperature below which logits may overflow


def apply_temperature(row: Candidates, temperature: float) -> Candidates:
    """Divide by a positive temperature; where it is tiny, the largest becomes 0 first.

    So none overflows but towards −∞, where it belongs.
    """
    assert temperature > 0, "temperature 0 means greedy and is decided before"
    if temperature == 1:
        return row
    if temperature > _TINY:
        return row._replace(logits=row.logits / temperature)
    with np.errstate(over="ignore"):
        return row._replace(logits=(row.logits - row.logits.max()) / temperature)


def keep_top_k(row: Candidates, top_k: int | None) -> Candidates:
    """Keep exactly the `top_k` largest logits (Fan et al. 2018, arXiv:1805.04833, section 5)."""
    if top_k is None or top_k >= len(row.logits):
        return row
    return row.keep(largest(row.logits, top_k))


def keep_top_p(row: Candidates, top_p: float) -> Candidates:
    """Keep the fewest likeliest tokens whose probabilities sum to at least `top_p`.

    The formula is the nucleus of Holtzman et al. 2020, “The Curious Case of Neural Text
    Degeneration”, section 3.1.
    """
    if top_p >= 1:
        return row
    each = probabilities(row.logits)
    rest = 1 - top_p
    # All tokens below rest / K hold less than the rest together: the nucleus lies above.
    return row.keep(fewest(each, each, top_p, (rest / 64, rest / 2048, rest / len(each))))


def keep_min_p(row: Candidates, min_p: float) -> Candidates:
    """Keep the tokens at least `min_p` times as likely as the likeliest.

    The formula is that of Nguyen et al. 2024, “Turning Up the Heat” (arXiv:2407.01082).
    """
    if min_p <= 0:
        return row
    return row.keep(np.flatnonzero(row.logits >= row.logits.max() + math.log(min_p)))


def keep_typical(row: Candidates, typical_p: float) -> Candidates:
    """Keep the fewest tokens, nearest to the expected surprise first, that hold `typical_p`.

    The formula is that of Meister et al. 2023, “Locally Typical Sampling” (arXiv:2202.00666).
    """
    if typical_p >= 1:
        return row
    logs = log_probabilities(row.logits)
    each = np.exp(logs)
    entropy = -float((each * np.where(each > 0, logs, 0)).sum(dtype=np.float64))
    nearness = -np.abs(logs + logs.dtype.type(entropy))
    return row.keep(fewest(nearness, each, typical_p, (-0.5, -1.0, -2.0, -3.0)))


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
