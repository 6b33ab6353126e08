"""The load balancing loss by scope: micro-batch, sequence, whole step; never in evaluation."""

from __future__ import annotations

import pytest
import torch

from coterie.batch import TokenBatch
from coterie.model import DecoderSettings, update_balance
from coterie.model.context import ForwardContext
from coterie.model.experts import MixtureOfExperts
from coterie.train.metrics import StepMetrics, total_counts
from coterie.train.objective import LanguageModel, Models

WIDTH, EXPERTS = 8, 4


def build(balance, **changes):
    pack = {"mlp": {"kind": "mlp", "width": 4}, "count": EXPERTS}
    base = {"experts": [pack], "experts_per_token": 2, "balance": balance}
    part = MixtureOfExperts.model_validate(base | changes).build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.6, generator=generator)
    return part.train()


def auxiliary(scope, coefficient=0.3):
    return {"kind": "auxiliary", "coefficient": coefficient, "scope": scope}


def draw(batch=3, length=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, generator=generator, dtype=torch.float64)


def product(part, tokens, load=None):
    """Return E · Σ f·P over tokens [N, D], from the definition."""
    logits = tokens @ part.router.weight.T
    shares = logits.softmax(-1)
    chosen = logits.topk(2).indices
    counts = torch.bincount(chosen.flatten(), minlength=EXPERTS) if load is None else load
    return EXPERTS * sum(
        counts[e] / counts.sum() * shares[:, e].mean() for e in range(EXPERTS)
    )  # fmt: skip


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("scope", ["micro_batch", "sequence", "global"])
def test_uniform_routing_costs_exactly_the_coefficient_in_every_scope(scope, score):
    part = build(auxiliary(scope, 0.25), experts_per_token=1, router={"score": score})
    with torch.no_grad():
        part.router.weight.copy_(torch.eye(EXPERTS, WIDTH))
    x = torch.zeros(2, 4, WIDTH, dtype=torch.float64)
    x[:, torch.arange(4), torch.arange(4)] = 3.0  # each token prefers its own expert
    assert part(x)[1].auxiliary.item() == pytest.approx(0.25, abs=1e-12)


def test_sequence_scope_is_the_mean_of_each_texts_own_product():
    part, x = build(auxiliary("sequence")), draw()
    expected = 0.3 * sum(product(part, text) for text in x) / len(x)
    torch.testing.assert_close(part(x)[1].auxiliary, expected)
    whole = build(auxiliary("micro_batch"))(x)[1].auxiliary
    assert abs(float((whole - expected).detach())) > 1e-3, "the scopes differ, so the test can fail"


def test_sequence_scope_leaves_padding_out_and_weighs_texts_by_their_tokens():
    part, x = build(auxiliary("sequence")), draw()
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[0, 4:] = False
    valid[2, :] = False
    expected = 0.3 * (4 * product(part, x[0, :4]) + 7 * product(part, x[1])) / 11
    torch.testing.assert_close(part(x, ForwardContext(valid=valid))[1].auxiliary, expected)
    nobody = part(x, ForwardContext(valid=torch.zeros_like(valid)))[1].auxiliary
    assert nobody.item() == 0.0


def test_a_bias_may_have_a_sequence_loss_beside_it():
    balance = {"kind": "bias", "sequence": 0.3}
    part, x = build(balance, router={"score": "sigmoid"}), draw()
    part.balance.selection_bias.copy_(torch.tensor([0.6, -0.6, 0.0, 0.0]))
    logits = x @ part.router.weight.T
    scores = torch.sigmoid(logits)
    shares = scores / scores.sum(-1, keepdim=True)
    chosen = (scores + part.balance.selection_bias).topk(2).indices
    expected = 0.0
    for b in range(3):  # DeepSeek-V3, equations 17 to 20, as they stand
        for e in range(EXPERTS):
            f = EXPERTS / (2 * 7) * int((chosen[b] == e).sum())
            expected = expected + 0.3 * f * shares[b, :, e].sum() / 7 / 3
    got = part(x)[1].auxiliary
    torch.testing.assert_close(got, expected)
    got.backward()
    assert part.router.weight.grad.abs().max() > 0
    assert build("bias")(x)[1].auxiliary.item() == 0.0


def test_global_scope_goes_by_the_load_of_the_step_so_far():
    part = build(auxiliary("global"))
    first, second = draw(seed=1), draw(seed=2)
    one = part(first)[1]
    torch.testing.assert_close(one.auxiliary, 0.3 * product(part, first.flatten(0, 1)))
    two = part(second)[1]
    both = one.load + two.load
    torch.testing.assert_close(two.auxiliary, 0.3 * product(part, second.flatten(0, 1), both))
    part.balance.update(both)
    again = part(second)[1]
    torch.testing.assert_close(again.auxiliary, 0.3 * product(part, second.flatten(0, 1)))


@pytest.mark.parametrize("end", ["update", "forget"])
def test_global_scope_begins_anew_with_each_step_made_or_not(end):
    part, x = build(auxiliary("global")), draw()
    fresh = part(x)[1].auxiliary
    part(draw(seed=2))
    part.balance.update(torch.ones(EXPERTS).long()) if end == "update" else part.balance.forget()
    assert torch.equal(part(x)[1].auxiliary, fresh)


def test_evaluation_leaves_the_step_so_far_alone():
    part, x = build(auxiliary("global")), draw()
    part(x)
    before = part.balance.observed.clone()
    own = part.eval()(draw(seed=2))[1]
    assert torch.equal(part.balance.observed, before)
    torch.testing.assert_close(
        own.auxiliary, 0.3 * product(part, draw(seed=2).flatten(0, 1))
    )  # fmt: skip
    assert "balance.observed" not in part.state_dict(), "empty whenever a checkpoint is written"


def decoder_with(balance):
    decoder = DecoderSettings.model_validate({
        "layers": 2, "width": WIDTH, "context": 8, "vocab_size": 11,
        "attention": {"kind": "grouped", "heads": 2}, "initial": {"std": 0.3},
        "feedforward": {"kind": "moe", "experts_per_token": 2, "balance": balance,
                        "experts": [{"mlp": {"kind": "mlp", "width": 4}, "count": EXPERTS}]},
    }).build(torch.Generator().manual_seed(0))  # fmt: skip
    return decoder.double().train()


def step(decoder, batch, pieces):
    """Accumulate gradients over so many micro-batches; return the metrics and the gradients."""
    metrics, objective = StepMetrics(), LanguageModel().build(decoder.settings)
    counts = total_counts([objective.counts(batch)])
    for piece in batch.split(pieces):
        metrics.add(objective(Models(decoder), piece), counts).backward()
    gradients = [p.grad for p in decoder.parameters() if p.grad is not None]
    update_balance(decoder, metrics.loads)
    return metrics, gradients


def make_batch():
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(11, (4, 8), generator=generator)
    targets = tokens.roll(-1, 1)
    targets[0, 2:] = -100
    targets[3, 6:] = -100
    return TokenBatch(tokens, targets)


BALANCES = {
    "sequence": auxiliary("sequence", 2.0),
    "bias with sequence": {"kind": "bias", "sequence": 2.0},
}


@pytest.mark.parametrize("name", BALANCES)
def test_balance_over_texts_is_the_same_however_a_batch_is_cut(name):
    whole, gradients = step(decoder_with(BALANCES[name]), make_batch(), 1)
    for pieces in (2, 4):
        cut, cut_gradients = step(decoder_with(BALANCES[name]), make_batch(), pieces)
        torch.testing.assert_close(cut.auxiliary["balance"], whole.auxiliary["balance"])
        assert all(torch.equal(cut.loads[layer], whole.loads[layer]) for layer in whole.loads)
        for one, other in zip(cut_gradients, gradients, strict=True):
            # a micro-batch's share of the tokens is a float32 number
            torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_the_global_load_comes_nearer_to_the_whole_batchs_than_each_pieces_own():
    def gap(scope):
        whole, _ = step(decoder_with(auxiliary(scope, 1.0)), make_batch(), 1)
        cut, _ = step(decoder_with(auxiliary(scope, 1.0)), make_batch(), 4)
        return abs(float(cut.auxiliary["balance"] - whole.auxiliary["balance"]))

    assert gap("global") < gap("micro_batch")


def test_an_observed_load_is_not_moved_by_later_ones():
    balance = build(auxiliary("global")).balance
    first = balance.observe(torch.tensor([1, 2, 3, 4]))
    assert balance.observe(torch.tensor([1, 0, 0, 0])).tolist() == [2, 2, 3, 4]
    assert first.tolist() == [1, 2, 3, 4]
