"""Compares compiled decode steps with eager ones, in a process free of the tests' shape checks.

Reads lines of JSON, each a model's settings, and writes for each the largest difference of logits
over steps of rows that have read unequally much. `aot_eager` makes no machine code.
"""

from __future__ import annotations

import json
import sys

import torch

from coterie.generate.cache import FullCacheSettings
from coterie.generate.passes import Call, EagerPass
from coterie.generate.passes.compiled import CompiledPass
from coterie.generate.session import cache_specs, evaluation
from coterie.model import DecoderSettings

STEPS = 5


def logits(decoder, passes, tokens) -> torch.Tensor:
    """Return the logits of every step after a prompt of three rows."""
    cache = FullCacheSettings(room=8).build(cache_specs(decoder))
    found = []
    with evaluation(decoder):
        EagerPass(decoder).read(Call(tokens[:, :5], cache, lengths=(5, 1, 3)))
        for step in range(STEPS):
            call = Call(tokens[:, 5 + step : 6 + step], cache)
            assert passes.refuses(call) is None, passes.refuses(call)
            found.append(passes.read(call))
    assert cache.lengths == (5 + STEPS, 1 + STEPS, 3 + STEPS)
    return torch.stack(found)


if __name__ == "__main__":
    for line in sys.stdin:
        settings = DecoderSettings.model_validate(json.loads(line))
        decoder = settings.build(torch.Generator().manual_seed(0)).double()
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.add_(torch.randn(parameter.shape, dtype=torch.double) * 0.1)
        tokens = torch.randint(23, (3, 5 + STEPS), generator=torch.Generator().manual_seed(1))
        torch._dynamo.reset()
        compiled = CompiledPass(decoder, backend=sys.argv[1])
        pairs = logits(decoder, EagerPass(decoder), tokens), logits(decoder, compiled, tokens)
        sys.stdout.write(f"{float((pairs[0] - pairs[1]).abs().max())}\n")
        sys.stdout.flush()
