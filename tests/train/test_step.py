"""One optimizer step: what is normalised by what, and what never reaches the weights."""

from __future__ import annotations

import pytest
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.foundation.errors import TrainingError
from coterie.model import DecoderSettings, selection_biases
from coterie.train.clip import NoClip, NormClip
from coterie.train.objective import Account, objective
from coterie.train.optimizer import AdamW, RoleParameter
from coterie.train.precision import LossScale, resolve_precision
from coterie.train.settings import TrainSettings
from coterie.train.step import Stepper

CPU = torch.device("cpu")


def make_decoder(balance: dict[str, object], z_loss: float = 0.0):
    torch.manual_seed(0)
    return DecoderSettings.model_validate(
        {
            "layers": 2,
            "width": 16,
            "context": 8,
            "vocab_size": 11,
            "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {
                "kind": "moe",
                "experts": [{"body": {"kind": "swiglu", "width": 8}, "count": 4}],
                "experts_per_token": 2,
                "balance": balance,
                "router": {"z_loss": z_loss},
            },
        }
    ).build()


def make_batch() -> TokenBatch:
    """Eight windows with 3, 0, 5, ... of 8 targets valid: never the same number in two pieces."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(11, (8, 9), generator=generator)
    targets = tokens[:, 1:].clone()
    for row, valid in enumerate((3, 0, 5, 8, 1, 7, 2, 8)):
        targets[row, valid:] = IGNORE
    return TokenBatch(tokens[:, :-1].contiguous(), targets)


class Keep:
    """An optimizer that only remembers the gradients it was given."""

    learning_rate = 1.0

    def __init__(self, decoder):
        self.decoder, self.gradients = decoder, {}

    def step(self, step, multiplier):
        self.gradients = {n: p.grad.clone() for n, p in self.decoder.named_parameters()}

    def state(self):
        return {}

    def load_state(self, state):
        return set()


def gradients(decoder, pieces: int, clip=None):
    optimizer = Keep(decoder)
    settings = TrainSettings(batch_size=8, gradient_accumulation=pieces)
    stepper = Stepper(decoder, decoder, optimizer, (clip or NoClip()).build(),
                      resolve_precision("float32", CPU), settings)  # fmt: skip
    result = stepper(0, make_batch())
    assert all(parameter.grad is None for parameter in decoder.parameters())
    return optimizer.gradients, result


def test_the_loss_is_the_mean_over_valid_tokens_of_the_whole_batch():
    decoder, batch = make_decoder({"kind": "none"}), make_batch()
    logits = decoder(batch.tokens).logits.flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets.flatten())
    for pieces in (1, 2, 4, 8):
        _, result = gradients(decoder, pieces)
        torch.testing.assert_close(torch.as_tensor(result.account.loss), expected.detach())


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_gradients_and_loads_do_not_depend_on_the_cut(pieces):
    # The z term is linear in tokens, so it too must come out the same for any cut.
    decoder = make_decoder({"kind": "none"}, z_loss=0.1)
    whole, result = gradients(decoder, 1)
    cut, cut_result = gradients(decoder, pieces)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(cut_result.account.auxiliary["z"], result.account.auxiliary["z"])
    for layer, load in result.account.loads.items():
        assert torch.equal(cut_result.account.loads[layer], load)
        assert (
            int(load.sum()) == 2 * 34
        )  # two experts for each of the valid tokens, none for others


def test_the_balance_term_is_a_mean_over_layers_and_reaches_the_router():
    decoder, batch = make_decoder({"kind": "auxiliary", "coefficient": 0.5}), make_batch()
    output = decoder(batch.tokens, batch.targets)
    account = Account()
    objective(output, (batch.targets != IGNORE).sum(), account)
    terms = torch.stack([layer.auxiliary for layer in output.routing])
    torch.testing.assert_close(account.auxiliary["balance"], terms.mean().detach())
    assert 0.4 < float(account.auxiliary["balance"]) < 1.0  # even routing gives 0.5 itself
    with_term, _ = gradients(decoder, 1)
    without, _ = gradients(make_decoder({"kind": "none"}), 1)
    routers = [name for name in with_term if "router" in name]
    assert routers
    for name in routers:
        assert not torch.allclose(with_term[name], without[name])


def test_every_term_is_minimised_and_not_only_told():
    torch.manual_seed(0)
    router = {"z_loss": 0.1, "select": {"kind": "dynamic", "mass": 0.6, "entropy": 0.2}}
    moe = {"kind": "moe", "experts": [{"body": {"kind": "swiglu", "width": 8}, "count": 4}],
           "experts_per_token": 2, "router": router,
           "balance": {"kind": "auxiliary", "coefficient": 0.5}}  # fmt: skip
    decoder = DecoderSettings.model_validate(
        {"layers": 2, "width": 16, "context": 8, "vocab_size": 11, "feedforward": moe,
         "attention": {"kind": "grouped", "heads": 2}}
    ).build().double()  # fmt: skip
    batch, account = make_batch(), Account()
    tokens = (batch.targets != IGNORE).sum()
    output = decoder(batch.tokens, batch.targets)
    loss = objective(output, tokens, account)
    weights = [block.feedforward.router.weight for block in decoder.blocks]
    terms = {
        "loss": output.loss_sum / tokens,
        "balance": torch.stack([each.auxiliary for each in output.routing]).mean(),
        "z": torch.stack([each.z for each in output.routing]).mean(),
        "entropy": torch.stack([each.entropy_term for each in output.routing]).mean(),
    }
    parts = {name: torch.autograd.grad(term, weights, retain_graph=True)
             for name, term in terms.items()}  # fmt: skip
    for index, gradient in enumerate(torch.autograd.grad(loss, weights)):
        torch.testing.assert_close(gradient, sum(part[index] for part in parts.values()))
    for name, part in parts.items():
        assert min(float(gradient.abs().max()) for gradient in part) > 1e-6, name
        if name != "loss":
            torch.testing.assert_close(account.auxiliary[name], terms[name].detach())


def test_clipping_bounds_the_norm_of_all_gradients_together():
    decoder = make_decoder({"kind": "none"})
    free, result = gradients(decoder, 1)
    norm = torch.stack([gradient.norm() for gradient in free.values()]).norm()
    torch.testing.assert_close(torch.tensor(result.gradient_norm), norm)
    clipped, _ = gradients(decoder, 1, NormClip(max_norm=float(norm) / 10))
    for name, gradient in clipped.items():
        torch.testing.assert_close(gradient, free[name] / 10, atol=1e-7, rtol=1e-4)
    loose, _ = gradients(decoder, 1, NormClip(max_norm=float(norm) * 10))
    assert all(torch.equal(loose[name], free[name]) for name in free)


def snapshot(decoder):
    return {name: tensor.clone() for name, tensor in decoder.state_dict().items()}


def make_stepper(decoder, precision: str):
    parameters = [RoleParameter(n, "matrix", p) for n, p in decoder.named_parameters()]
    return Stepper(decoder, decoder, AdamW().build(parameters), NoClip().build(),
                   resolve_precision(precision, CPU), TrainSettings(batch_size=8))  # fmt: skip


def test_a_float16_overflow_skips_the_step_and_the_balance():
    decoder = make_decoder({"kind": "bias", "rate": 0.1})
    stepper = make_stepper(decoder, "float16")
    assert stepper.loss_scale is not None
    stepper.loss_scale.scale = 1e38
    before = snapshot(decoder)
    result = stepper(0, make_batch())
    assert not result.moved
    assert stepper.loss_scale.scale == 5e37
    after = snapshot(decoder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    stepper.loss_scale.scale = 8.0
    assert stepper(1, make_batch()).moved
    assert any(bias.any() for bias in selection_biases(decoder).values())


def test_a_skipped_step_leaves_no_load_behind_for_the_next():
    decoder = make_decoder({"kind": "auxiliary", "scope": "global"})
    stepper = make_stepper(decoder, "float16")
    assert stepper.loss_scale is not None
    stepper.loss_scale.scale = 1e38
    assert not stepper(0, make_batch()).moved
    for block in decoder.blocks:
        assert not block.feedforward.balance.observed.any()


def test_the_loss_scale_leaves_norm_and_update_as_they_are():
    results = {}
    for scale in (1.0, 1024.0):
        decoder = make_decoder({"kind": "none"})
        stepper = make_stepper(decoder, "float32")
        stepper.loss_scale = LossScale(scale)
        results[scale] = stepper(0, make_batch()).gradient_norm, snapshot(decoder)
    assert results[1.0][0] == pytest.approx(results[1024.0][0])
    for name, tensor in results[1.0][1].items():
        torch.testing.assert_close(results[1024.0][1][name], tensor)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_bad_gradient_is_named_and_nothing_moves(precision):
    decoder = make_decoder({"kind": "bias"})
    stepper = make_stepper(decoder, precision)
    if stepper.loss_scale is not None:
        stepper.loss_scale.scale = 1.0  # no scale is left to blame
    with torch.no_grad():
        decoder.norm.weight[3] = torch.inf
    before = snapshot(decoder)
    with pytest.raises(TrainingError, match=r"At step 8 the gradient of \S+ is not finite"):
        stepper(7, make_batch())
    after = snapshot(decoder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not stepper.optimizer.state()
