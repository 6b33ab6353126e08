"""The objective of a step: the policy gradient where on policy, nothing of prompts, any cut."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import math

import pytest
import torch

from coterie.align.reinforce.advantages import group_advantages
from coterie.align.reinforce.experience import assembled
from coterie.align.reinforce.objective import (
    PolicyModels,
    ReinforceObjective,
    Weights,
    read_policy,
)
from coterie.align.reinforce.rollout import Writer
from coterie.generate import SamplingSettings
from coterie.train.metrics import StepMetrics, total_counts

SAMPLING = SamplingSettings(temperature=1.0, max_tokens=10, compute="torch")
PLAIN = {
    "kl": lambda: 0.0, "estimator": "k3", "entropy": 0.0, "value": 0.0, "low": 0.2, "high": 0.2,
    "value_clip": None, "temperature": 1.0, "replay": True,
}  # fmt: skip


@pytest.fixture
def batch(base):
    writer = Writer(base.decoder, base.tokenizer, SAMPLING, 64)
    found = assembled(writer.write(["Shall\n", "Thou art\n"], 3, seed=1), "text", 10)
    base.decoder.requires_grad_(True).eval()
    rewards = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.2, 0.9]])
    each = group_advantages(rewards).flatten()[:, None]
    return found.but(advantages=torch.where(found.valid, each, 0.0))


def stepped(decoder, batch, cuts=1, **weights):
    """Return loss, metrics and gradients of a step in so many pieces."""
    decoder.zero_grad()
    objective, models = (
        ReinforceObjective(Weights(**{**PLAIN, **weights})),
        PolicyModels(decoder, decoder),
    )
    pieces = list(batch.split(cuts))
    counts, metrics = total_counts(objective.counts(each) for each in pieces), StepMetrics()
    for piece in pieces:
        metrics.add(objective(models, piece), counts).backward()
    gradients = {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}
    return metrics, gradients


def test_on_policy_it_is_the_policy_gradient_of_written_tokens_alone(base, batch):
    _, gradients = stepped(base.decoder, batch)
    base.decoder.zero_grad()
    read = read_policy(base.decoder, base.decoder, batch)
    weights = batch.weights * batch.advantages  # zero on every token of a prompt
    (-(read.logprobs * weights).sum() / batch.tokens.shape[0]).backward()
    for name, gradient in gradients.items():
        expected = dict(base.decoder.named_parameters())[name].grad
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


def test_what_stands_where_nothing_was_written_changes_nothing(base, batch):
    _, expected = stepped(base.decoder, batch, kl=lambda: 0.1)
    reference = torch.where(batch.valid, 0.0, 99.0)
    told, plain = stepped(base.decoder, batch.but(reference=torch.zeros_like(reference)),
                          kl=lambda: 0.1)  # fmt: skip
    same, found = stepped(base.decoder, batch.but(reference=reference), kl=lambda: 0.1)
    for name in ("kl_penalty", "kl/k1"):
        torch.testing.assert_close(same.auxiliary[name], told.auxiliary[name])
    assert expected.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[name])


def test_any_cut_into_micro_batches_gives_the_same(base, batch):
    batch = batch.but(reference=batch.written - 0.1)
    whole, expected = stepped(base.decoder, batch, kl=lambda: 0.1, entropy=0.01)
    cut, found = stepped(base.decoder, batch, cuts=3, kl=lambda: 0.1, entropy=0.01)
    assert float(cut.loss) == pytest.approx(float(whole.loss), abs=1e-6)
    for name, value in whole.auxiliary.items():
        assert float(cut.auxiliary[name]) == pytest.approx(float(value), abs=1e-5), name
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


def test_an_entropy_bonus_raises_the_entropy(base, batch):
    quiet = batch.but(advantages=torch.zeros_like(batch.advantages))
    before, gradients = stepped(base.decoder, quiet, entropy=1.0)
    with torch.no_grad():
        for name, parameter in base.decoder.named_parameters():
            if name in gradients:
                parameter -= 0.01 * gradients[name]
    after, _ = stepped(base.decoder, quiet, entropy=1.0)
    assert float(after.auxiliary["policy/entropy"]) > float(before.auxiliary["policy/entropy"])


def test_replay_repeats_the_routes_of_the_rollout_though_routers_moved(base, batch):
    with torch.no_grad():
        for name, parameter in base.decoder.named_parameters():
            if "router" in name:
                parameter += torch.randn_like(parameter)
    on, _ = stepped(base.decoder, batch)
    read = read_policy(base.decoder, base.decoder, batch)
    for number, each in enumerate(read.routes):
        recorded = batch.routes[:, :, number].flatten(0, 1).long()
        known = (recorded >= 0).all(-1)
        assert torch.equal(each.indices[known], recorded[known])
        assert not torch.equal(each.own[known], recorded[known])
    off, _ = stepped(base.decoder, batch, replay=False)
    free = read_policy(base.decoder, base.decoder, batch, replay=False)
    assert not torch.equal(free.logprobs, read.logprobs)
    for metrics in (on, off):
        assert 0 < float(metrics.auxiliary["routing/agreement"]) < 0.95


def test_one_ratio_a_text_is_the_geometric_mean_of_its_tokens(base, batch):
    shifted = batch.but(old=batch.written - torch.where(batch.valid, 0.3, 0.0))
    metrics, _ = stepped(base.decoder, shifted, sequence=True)
    ratio = float(metrics.auxiliary["importance_ratio/mean"])
    assert ratio == pytest.approx(math.exp(0.3), rel=1e-3)
    assert float(metrics.auxiliary["clip_ratio/high"]) > 0
