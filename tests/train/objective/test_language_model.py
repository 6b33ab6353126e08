"""The language model objective: what is normalised by what, and that no cut changes it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.batch import IGNORE, TokenBatch
from coterie.model import DecoderSettings
from coterie.train.metrics import StepMetrics, total_counts
from coterie.train.objective import LanguageModel, Models

MOE = {
    "kind": "moe", "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
    "experts_per_token": 2, "router": {"z_loss": 0.1}, "balance": "none",
}  # fmt: skip


def make_decoder(**changes):
    torch.manual_seed(0)
    base = {
        "layers": 2, "width": 16, "context": 8, "vocab_size": 11,
        "attention": {"kind": "grouped", "heads": 2}, "feedforward": MOE,
        "mtp": {"depth": 2, "weight": 0.6}, "initial": {"std": 0.2},
    }  # fmt: skip
    return DecoderSettings.model_validate(base | changes).build().double().train()


def make_batch(weighted: bool = False) -> TokenBatch:
    """Eight windows with 3, 0, 5, ... of 8 targets valid: never the same number in two pieces."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(11, (8, 9), generator=generator)
    targets = tokens[:, 1:].clone()
    for row, valid in enumerate((3, 0, 5, 8, 1, 7, 2, 8)):
        targets[row, valid:] = IGNORE
    weights = torch.rand(8, 8, generator=generator).double() if weighted else None
    return TokenBatch(tokens[:, :-1].contiguous(), targets, weights)


def take(decoder, batch: TokenBatch, pieces: int = 1):
    """Return the metrics and the gradients of a batch in so many micro-batches."""
    metrics, objective = StepMetrics(), LanguageModel().build(decoder.settings)
    counts = total_counts(objective.counts(piece) for piece in batch.split(pieces))
    decoder.zero_grad()
    for piece in batch.split(pieces):
        metrics.add(objective(Models(decoder), piece), counts).backward()
    return metrics, {name: p.grad for name, p in decoder.named_parameters()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_terms_loads_and_gradients_do_not_depend_on_the_cut(pieces, weighted):
    # The z term is linear in tokens, so it too must come out the same for any cut.
    decoder, batch = make_decoder(), make_batch(weighted)
    whole, gradients = take(decoder, batch)
    cut, cut_gradients = take(decoder, batch, pieces)
    torch.testing.assert_close(cut.loss, whole.loss)
    assert set(cut.auxiliary) == {"mtp", "balance", "z", "entropy"}
    for name, term in whole.auxiliary.items():
        torch.testing.assert_close(cut.auxiliary[name], term)
    for name, gradient in gradients.items():
        torch.testing.assert_close(cut_gradients[name], gradient, rtol=1e-5, atol=1e-8)
    assert set(whole.loads) == {0, 1, 2, 3}
    for layer, load in whole.loads.items():
        assert torch.equal(cut.loads[layer], load)
    assert int(whole.loads[0].sum()) == 2 * 34, "two experts for each valid token, none for others"


@pytest.mark.parametrize("weighted", [False, True])
def test_each_loss_is_the_weighted_mean_over_the_whole_batch(weighted):
    decoder, batch = make_decoder(), make_batch(weighted)
    weights = torch.ones(8, 8).double() if batch.weights is None else batch.weights
    logits = [decoder(batch.tokens).logits, *decoder.predict_mtp(batch.tokens)]
    means = []
    for depth, each in enumerate(logits):
        goals = batch.targets[:, depth:].flatten()
        losses = F.cross_entropy(each.flatten(0, 1), goals, ignore_index=IGNORE, reduction="none")
        share = weights[:, depth:].flatten() * (goals != IGNORE)
        means.append((losses * share).sum() / share.sum())
    found, _ = take(decoder, batch, 4)
    torch.testing.assert_close(found.loss, means[0].detach())
    expected = 0.6 * (means[1] + means[2]) / 2
    torch.testing.assert_close(found.auxiliary["mtp"], expected.detach())


def test_a_weight_of_zero_is_as_no_target_to_the_loss():
    decoder, batch = make_decoder(feedforward={"kind": "dense"}), make_batch()
    without = batch.targets.clone()
    without[3, 2:5] = IGNORE
    weights = torch.ones(8, 8).double()
    weights[3, 2:5] = 0
    found, gradients = take(decoder, TokenBatch(batch.tokens, batch.targets, weights))
    expected, expected_gradients = take(decoder, TokenBatch(batch.tokens, without))
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.auxiliary["mtp"], expected.auxiliary["mtp"])
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient)


def test_a_depth_without_any_target_adds_nothing():
    decoder, batch = make_decoder(), make_batch()
    targets = batch.targets.clone()
    targets[:, 1:] = IGNORE
    found, _ = take(decoder, TokenBatch(batch.tokens, targets))
    assert float(found.auxiliary["mtp"]) == 0
    assert float(found.loss) > 0


@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_shorter_than_the_chain_are_trained_on(length):
    tokens = make_batch().tokens[:, :length]
    found, _ = take(make_decoder(), TokenBatch(tokens, tokens))
    assert ("mtp" in found.auxiliary) == (length > 1)


def test_a_batch_without_targets_costs_nothing():
    decoder = make_decoder(feedforward=MOE | {"balance": "auxiliary"})
    tokens = make_batch().tokens
    found, gradients = take(decoder, TokenBatch(tokens, torch.full_like(tokens, IGNORE)))
    assert float(found.loss) == 0.0
    assert all(float(term) == 0.0 for term in found.auxiliary.values())
    assert all(not gradient.any() for gradient in gradients.values() if gradient is not None)
