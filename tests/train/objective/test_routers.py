"""The routers' terms: means over layers, each of them minimised and not only reported."""

from __future__ import annotations

import torch

from coterie.batch import TokenBatch
from coterie.model import DecoderSettings
from coterie.train.metrics import StepMetrics, total_counts
from coterie.train.objective import LanguageModel, Models

TOKENS = torch.randint(11, (8, 8), generator=torch.Generator().manual_seed(1))
BATCH = TokenBatch(TOKENS, TOKENS.roll(-1, 1))


def test_every_term_is_the_mean_over_layers_and_is_minimised():
    torch.manual_seed(0)
    router = {"z_loss": 0.1, "select": {"kind": "dynamic", "mass": 0.6, "entropy": 0.2}}
    moe = {"kind": "moe", "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
           "experts_per_token": 2, "router": router,
           "balance": {"kind": "auxiliary", "coefficient": 0.5}}  # fmt: skip
    decoder = DecoderSettings.model_validate(
        {"layers": 2, "width": 16, "context": 8, "vocab_size": 11, "feedforward": moe,
         "attention": {"kind": "grouped", "heads": 2}}
    ).build().double()  # fmt: skip
    metrics, objective = StepMetrics(), LanguageModel().build(decoder.settings)
    found = objective(Models(decoder), BATCH)
    loss = metrics.add(found, total_counts([objective.counts(BATCH)]))
    terms = {
        "loss": found.terms[0].total / 64,
        "balance": torch.stack([each.auxiliary for each in found.router_stats]).mean(),
        "z": torch.stack([each.z for each in found.router_stats]).mean(),
        "entropy": torch.stack([each.entropy_term for each in found.router_stats]).mean(),
    }
    assert 0.4 < float(terms["balance"].detach()) < 1.0  # even routing gives 0.5 itself
    weights = [block.feedforward.router.weight for block in decoder.blocks]
    parts = {name: torch.autograd.grad(term, weights, retain_graph=True)
             for name, term in terms.items()}  # fmt: skip
    for index, gradient in enumerate(torch.autograd.grad(loss, weights)):
        torch.testing.assert_close(gradient, sum(part[index] for part in parts.values()))
    for name, part in parts.items():
        assert min(float(gradient.abs().max()) for gradient in part) > 1e-6, name
        if name != "loss":
            torch.testing.assert_close(metrics.auxiliary[name], terms[name].detach())
