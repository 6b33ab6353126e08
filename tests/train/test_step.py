"""One optimizer step: clipping, the loss scale, and what never reaches the weights."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.foundation.errors import TrainingError
from coterie.model import DecoderSettings, selection_biases
from coterie.parallel.health import CrowdedError
from coterie.train.clip import NoClip, NormClip
from coterie.train.objective import LanguageModel, Models
from coterie.train.optimizer import AdamW, RoleParameter
from coterie.train.precision import LossScale, resolve_precision
from coterie.train.settings import TrainSettings
from coterie.train.step import NoRoomError, Stepper, is_out_of_memory

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
                "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
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


def gradients(decoder, clip=None, pieces=1):
    optimizer = Keep(decoder)
    settings = TrainSettings(batch_size=8, gradient_accumulation=pieces)
    stepper = Stepper(
        decoder, Models(decoder), LanguageModel().build(decoder.settings), optimizer,
        (clip or NoClip()).build(), resolve_precision("float32", CPU), settings,
    )  # fmt: skip
    result = stepper(0, make_batch())
    assert all(parameter.grad is None for parameter in decoder.parameters())
    return optimizer.gradients, result


def test_clipping_bounds_the_norm_of_all_gradients_together():
    decoder = make_decoder({"kind": "none"})
    free, result = gradients(decoder)
    norm = torch.stack([gradient.norm() for gradient in free.values()]).norm()
    torch.testing.assert_close(torch.tensor(result.gradient_norm), norm)
    clipped, _ = gradients(decoder, NormClip(max_norm=float(norm) / 10))
    for name, gradient in clipped.items():
        torch.testing.assert_close(gradient, free[name] / 10, atol=1e-7, rtol=1e-4)
    loose, _ = gradients(decoder, NormClip(max_norm=float(norm) * 10))
    assert all(torch.equal(loose[name], free[name]) for name in free)


@pytest.mark.parametrize("pieces", [2, 8])
def test_the_cut_into_micro_batches_changes_nothing_but_rounding(pieces):
    decoder = make_decoder({"kind": "none"})
    whole, one = gradients(decoder)
    cut, other = gradients(decoder, pieces=pieces)
    torch.testing.assert_close(other.metrics.loss, one.metrics.loss)
    for name, gradient in cut.items():
        torch.testing.assert_close(gradient, whole[name], atol=1e-7, rtol=1e-4)


class Scarce(LanguageModel):
    """The objective on a machine with memory for so many rows at once, which fails late."""

    rows: int

    def build(self, model):
        inner, rows = super().build(model), self.rows

        class Objective:
            counts = staticmethod(inner.counts)
            micro_batches = 0

            def __call__(self, models, batch):
                self.micro_batches += 1
                torch.rand(1)  # as dropout does
                terms = inner(models, batch)
                if batch.tokens.shape[0] > rows and self.micro_batches > 1:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried 1 GiB.\nmore")
                return terms

        return Objective()


class Failing(LanguageModel):
    """The objective on a machine whose memory does not suffice at some micro-batches, by number."""

    fails: tuple[int, ...]

    def build(self, model):
        inner, fails = super().build(model), self.fails

        class Objective:
            counts = staticmethod(inner.counts)
            micro_batches = 0

            def __call__(self, models, batch):
                self.micro_batches += 1
                terms = inner(models, batch)  # balances have seen the micro-batch
                if self.micro_batches in fails:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return terms

        return Objective()


@pytest.mark.parametrize("seed", range(8))
def test_out_of_memory_at_random_micro_steps_leaves_the_same_gradient(seed):
    """Once or twice within a step of 1, 2 or 4 pieces, with a balance over the whole batch."""
    draw = random.Random(seed)
    balance = {"kind": "auxiliary", "scope": "global"} if seed % 2 else {"kind": "bias"}
    decoder, pieces = make_decoder(balance, z_loss=0.1), draw.choice([1, 2, 4])
    times = draw.choice([1, 2]) if pieces < 4 else 1
    first = draw.randint(1, pieces)
    # After the first failure the step begins anew in twice as many pieces.
    fails = (first, first + draw.randint(1, 2 * pieces))[:times]
    stepper = make_stepper(decoder, "float32", Failing(fails=fails), pieces=pieces)
    stepper.optimizer = Keep(decoder)
    result = stepper(0, make_batch())
    assert stepper.pieces == pieces * 2**times
    clean = make_decoder(balance, z_loss=0.1)
    same, other = gradients(clean, pieces=stepper.pieces)
    whole, one = gradients(make_decoder(balance, z_loss=0.1))
    for name, gradient in stepper.optimizer.gradients.items():
        assert torch.equal(gradient, same[name])
        if seed % 2 == 0:  # a balance loss by the load so far depends on the cut
            torch.testing.assert_close(gradient, whole[name], atol=1e-6, rtol=1e-4)
    assert result.loss == other.loss == pytest.approx(one.loss, abs=1e-6)
    assert all(torch.equal(result.metrics.loads[i], one.metrics.loads[i]) for i in (0, 1))
    for layer, bias in selection_biases(decoder).items():
        assert torch.equal(bias, selection_biases(clean)[layer])


@pytest.mark.parametrize("balance", [{"kind": "none"}, {"kind": "auxiliary", "scope": "global"}])
def test_a_step_that_runs_out_of_memory_is_taken_in_smaller_pieces(balance):
    decoder = make_decoder(balance)
    whole, one = gradients(decoder, pieces=2)
    cut, other = gradients(decoder, pieces=4)
    stepper = make_stepper(decoder, "float32", Scarce(rows=2), pieces=2)
    stepper.optimizer, told = Keep(decoder), []
    stepper.tell = told.append
    torch.manual_seed(5)
    result = stepper(0, make_batch())
    drawn = torch.Generator().manual_seed(5)
    for _ in range(4):  # what the pieces that fit drew, and no more
        torch.rand(1, generator=drawn)
    assert torch.equal(torch.get_rng_state(), drawn.get_state())
    assert (stepper.pieces, len(told)) == (4, 1)
    assert "train.gradient_accumulation=4" in told[0]
    for name, gradient in stepper.optimizer.gradients.items():
        assert torch.equal(gradient, cut[name])
        if balance["kind"] == "none":  # the load of the pieces so far is another
            torch.testing.assert_close(gradient, whole[name], atol=1e-7, rtol=1e-3)
    assert float(result.metrics.loss) == float(other.metrics.loss) == pytest.approx(one.loss)
    stepper(1, make_batch())  # in pieces that fit at once
    assert len(told) == 1


def test_a_batch_of_other_rows_is_cut_into_the_next_number_that_divides_them():
    """As a curriculum has them; what did not suffice for 12 rows made 3 pieces of 4."""
    decoder = make_decoder({"kind": "none"})
    whole, _ = gradients(decoder, pieces=4)
    stepper = make_stepper(decoder, "float32")
    stepper.optimizer, stepper.pieces = Keep(decoder), 3
    stepper(0, make_batch())  # 8 rows
    for name, gradient in stepper.optimizer.gradients.items():
        assert torch.equal(gradient, whole[name])


def test_memory_for_not_even_one_row_ends_the_run_with_advice():
    decoder = make_decoder({"kind": "none"})
    stepper = make_stepper(decoder, "float32", Scarce(rows=0), pieces=2)
    before = snapshot(decoder)
    with pytest.raises(TrainingError, match="Not even one row"):
        stepper(0, make_batch())
    assert all(torch.equal(before[name], each) for name, each in decoder.state_dict().items())
    assert stepper.pieces == 8


def test_other_errors_of_the_passes_are_not_taken_for_lack_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def snapshot(decoder):
    return {name: tensor.clone() for name, tensor in decoder.state_dict().items()}


def make_stepper(decoder, precision: str, objective=None, pieces=1):
    parameters = [RoleParameter(n, "matrix", p) for n, p in decoder.named_parameters()]
    return Stepper(
        decoder, Models(decoder), (objective or LanguageModel()).build(decoder.settings),
        AdamW().build(parameters), NoClip().build(), resolve_precision(precision, CPU),
        TrainSettings(batch_size=8, gradient_accumulation=pieces),
    )  # fmt: skip


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


@pytest.mark.parametrize(("wakes", "kind"), [(True, CrowdedError), (False, NoRoomError)])
def test_of_several_processes_none_cuts_a_batch_alone(monkeypatch, wakes, kind):
    """The others wait for its part: a step taken anew by one would never meet theirs."""
    stepper = make_stepper(make_decoder({"kind": "none"}), "float32", LanguageModel(), pieces=2)
    stepper.together = SimpleNamespace(joins_anew=wakes)

    def scarce(batch, watched):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 1 GiB.")

    monkeypatch.setattr(stepper, "_computed", scarce)
    with pytest.raises(kind, match="memory of this process: CUDA out of memory"):
        stepper._gradients(make_batch(), watched=False)
    assert stepper.pieces == 2
