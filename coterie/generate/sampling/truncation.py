"""Temperature and the ways of leaving unlikely tokens out; each keeps at least one."""

import math

import numpy as np

from coterie.generate.sampling.candidates import (
    Candidates,
    fewest,
    largest,
    log_probabilities,
    probabilities,
)

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
