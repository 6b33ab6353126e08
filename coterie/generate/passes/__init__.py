"""Ways to compute the logits of new tokens, asked in order of preference; one file per way.

`eager` calls the decoder and serves everything; a faster way says beforehand which calls it cannot
serve.
"""

from coterie.generate.passes.eager import EagerPass
from coterie.generate.passes.interface import Call, Pass, serving

__all__ = ["Call", "EagerPass", "Pass", "serving"]
