"""Penalties: tokens that were written become less likely."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from coterie.generate.sampling.candidates import Candidates


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
