"""Compares compiled decoders with plain ones, in a process free of the tests' shape checks.

Each line written is a case and the largest difference of its losses and gradients. Compiling takes
seconds, so few cases hold together what differs in the graphs.
"""

from __future__ import annotations

import sys

import torch

from coterie.model import DecoderSettings

BASE = {
    "layers": 1, "width": 16, "context": 12, "vocab_size": 23, "initial": {"std": 0.2},
    "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2, "query_key_norm": True},
    "feedforward": {"kind": "dense", "body": {"kind": "swiglu", "width": 12}},
}  # fmt: skip
TAGS = {"opening": "<S>", "closing": "</S>", "opening_id": 3, "closing_id": 8, "follow": "name"}
CASES = {
    "parts": {
        "arrangement": {"kind": "parallel", "gate": "token"},
        "dropout": {"kind": "structured", "rate": 0.2, "size": 4}, "stochastic_depth": 0.5,
        "structure": {"kinds": {"speaker": TAGS}},
        "ahead": {"depth": 1}, "value": {}, "pooled": {"pool": "last"},
    },
    "moe": {"feedforward": {
        "kind": "moe", "experts": [{"body": {"kind": "swiglu", "width": 8}, "count": 4}],
        "experts_per_token": 2, "compute": "loop",
    }},
}  # fmt: skip


def difference(changes) -> float:
    """Return the largest difference between the compiled decoder and the plain one."""
    settings = DecoderSettings.model_validate(BASE | changes)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(23, (4, 12), generator=generator)
    results = []
    for compiled in (False, True):
        decoder = settings.build(torch.Generator().manual_seed(0)).double().train()
        forward = torch.compile(decoder, backend="aot_eager") if compiled else decoder
        torch.manual_seed(0)
        output = forward(tokens, tokens.roll(-1, 1))
        total = output.loss_sum + sum(part.loss_sum for part in output.ahead)
        for further in (output.values, output.embedding):
            total = total + (0 if further is None else further.sum())
        total.backward()
        results.append([total.detach(), *(parameter.grad for parameter in decoder.parameters())])
    return max(float((one - other).abs().max()) for one, other in zip(*results, strict=True))


if __name__ == "__main__":
    for name, changes in CASES.items():
        torch._dynamo.reset()
        sys.stdout.write(f"{name} {difference(changes)}\n")
