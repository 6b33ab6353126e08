"""Ways to compute the logits of new tokens, asked in order of preference; one file per way.

`eager` calls the decoder and serves everything; `compiled` and `native` say beforehand which calls
they cannot serve; `choice` says which of them a decoder gets.
"""

from coterie.generate.passes.choice import Compute, passes_for
from coterie.generate.passes.compiled import CompiledPass
from coterie.generate.passes.eager import EagerPass
from coterie.generate.passes.interface import Call, Pass, SeveralSteps, serving
from coterie.generate.passes.native import NativePass
