"""From one row of logits to one token: a chain of pure functions and a random stream of its own.

The chain: add `logit_bias`, mask what may not follow, then the steps in the order that
`sampling.order` names, then draw. A row is one text's; it is worked on with NumPy, which costs a
fraction of torch's calls at this size, and steps that truncate leave a shorter row behind.
"""

from coterie.generate.sampling.rule import Chosen, Rule
from coterie.generate.sampling.sampler import Choice, Sampler, TopLogprobs, not_finite
from coterie.generate.sampling.settings import SamplingSettings
