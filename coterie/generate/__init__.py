"""Floor 5: from a decoder and its tokenizer to text, one certain character after the other.

`engine` is the loop, `reading` feeds the decoder, `sampling` chooses tokens, `stopping` holds back
what may become a stop text, `cache` keeps keys and values. Nothing here knows of training.
"""

from coterie.generate.engine import Engine, FinishReason, Generation, Piece
from coterie.generate.sampling import Sampler, SamplingSettings, TopLogprobs

__all__ = [
    "Engine",
    "FinishReason",
    "Generation",
    "Piece",
    "Sampler",
    "SamplingSettings",
    "TopLogprobs",
]
