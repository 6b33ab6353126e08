"""Router noise: random in training, so that other experts get a try; a closed union.

A noise may change what the router reads (`inputs`) or its logits (`logits`), in training mode
alone. Chance comes from torch's global generator of the device, which recomputation winds back, so
that the second pass of a block sees the same noise.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.experts.noise.gaussian import GaussianNoise
from coterie.model.experts.noise.jitter import JitterNoise
from coterie.model.experts.noise.learned import LearnedNoise
from coterie.model.experts.noise.none import NoNoise

Noise = Annotated[
    NoNoise | LearnedNoise | GaussianNoise | JitterNoise,
    union(NoNoise, LearnedNoise, GaussianNoise, JitterNoise),
]
