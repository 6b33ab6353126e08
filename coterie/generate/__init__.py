"""Floor 5: from a decoder and its tokenizer to text, one certain character after the other.

`engine` is the front, `request` what it is asked, `scheduler` the loop, `session` feeds the decoder
by way of `passes`, `text` is one text in the making, `sampling` chooses tokens, `stopping` holds
back what may become a stop text, `cache` keeps keys and values. Nothing here knows of training.
"""

from coterie.generate.constraints.report import Report
from coterie.generate.engine import Engine
from coterie.generate.request import FinishReason, Generation, Piece, Request
from coterie.generate.sampling import SamplingSettings, TopLogprobs
