"""Compares compiled decoders with plain ones, in a process free of the tests' shape checks.

Reads lines of JSON, each the name of a case and its settings, and writes for each the largest
difference of losses and gradients. `aot_eager` traces forward and backward as every compiler does
and makes no machine code, which would take minutes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from coterie.model import DecoderSettings


def run(settings: DecoderSettings, *, compiled: bool) -> list[torch.Tensor]:
    """Return the sum of all losses and all gradients of one training pass."""
    decoder = settings.build(torch.Generator().manual_seed(0)).double().train()
    forward: Any = torch.compile(decoder, backend="aot_eager") if compiled else decoder
    tokens = torch.randint(23, (4, 12), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    output = forward(tokens, tokens.roll(-1, 1))
    total = output.losses.sum() + sum(part.sum() for part in output.mtp)
    for layer in output.router_stats:
        total = total + layer.auxiliary + layer.z + layer.entropy_term
    for further in (output.values, output.embedding):
        total = total + (0 if further is None else further.sum())
    total.backward()
    return [total.detach(), *(p.grad for p in decoder.parameters() if p.grad is not None)]


if __name__ == "__main__":
    for line in sys.stdin:
        name, changes = json.loads(line)
        settings = DecoderSettings.model_validate(changes)
        torch._dynamo.reset()
        pairs = zip(run(settings, compiled=False), run(settings, compiled=True), strict=True)
        largest = max(float((one - other).abs().max()) for one, other in pairs)
        sys.stdout.write(f"{name} {largest}\n")
        sys.stdout.flush()
