"""A step's scale, norm and limit are those of its own gradients, never of the step after."""

from __future__ import annotations

import itertools

import pytest
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.foundation.errors import TrainingError
from coterie.model import DecoderSettings
from coterie.train.clip import AdaptiveClip, NoClip, NormClip
from coterie.train.objective import LanguageModel, Models
from coterie.train.optimizer import AdamW, RoleParameter
from coterie.train.precision import LossScale, resolve_precision
from coterie.train.settings import TrainSettings
from coterie.train.step import Stepper

CPU = torch.device("cpu")
MOVED = (True, True, True, False, True, True, False, True, True, True, True)
SCALES = (8, 8, 8, 16, 8, 8, 8, 4, 4, 4, 8)  # good steps that the scale doubles after: 3


def make_decoder(dtype=torch.float64, balance: str = "none"):
    torch.manual_seed(0)
    moe = {
        "kind": "moe", "experts": [{"mlp": {"kind": "gated", "width": 8}, "count": 4}],
        "experts_per_token": 2, "balance": balance, "router": {"z_loss": 0.01},
    }  # fmt: skip
    settings = {
        "layers": 1, "width": 8, "context": 8, "vocab_size": 11, "mtp": {"depth": 1},
        "attention": {"kind": "grouped", "heads": 1}, "feedforward": moe,
    }  # fmt: skip
    return DecoderSettings.model_validate(settings).build().to(dtype).train()


def make_batch(seed: int) -> TokenBatch:
    tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(seed))
    targets = tokens[:, 1:].clone()
    targets[seed % 4, 2:] = IGNORE
    return TokenBatch(tokens[:, :-1].contiguous(), targets)


class Recorder:
    """An optimizer that remembers the gradients it was given and the rate it was told."""

    learning_rate = 1.0

    def __init__(self, decoder):
        self.decoder, self.gradients, self.told = decoder, [], []

    def step(self, step, multiplier):
        self.told.append((step, multiplier))
        self.gradients.append([p.grad.clone() for p in self.decoder.parameters()])

    @property
    def norm(self) -> float:
        return float(torch.nn.utils.get_total_norm(self.gradients[-1]))


def make_stepper(decoder, clip, pieces=1, scale=None, precision="float32"):
    settings = TrainSettings(batch_size=4, gradient_accumulation=pieces)
    stepper = Stepper(
        decoder, Models(decoder), LanguageModel().build(decoder.settings), Recorder(decoder),
        clip.build(), resolve_precision(precision, CPU), settings,
    )  # fmt: skip
    if scale is not None:
        stepper.loss_scale = scale
    return stepper


CLIPS = {
    "none": NoClip(),
    "fixed": NormClip(max_norm=0.3),
    "adaptive": AdaptiveClip(percentile=40, history=4),
    "both": AdaptiveClip(percentile=60, history=4, max_norm=0.8),
}


@pytest.mark.parametrize(
    ("clip", "pieces"), [*((clip, 1) for clip in CLIPS), ("fixed", 2), ("adaptive", 2)]
)
def test_growth_and_overflow_leave_gradients_norms_and_limits_as_they_are(clip, pieces):
    decoder, clip = make_decoder(), CLIPS[clip]
    overflowing = itertools.cycle([False])

    def spoil(gradient):
        return gradient * float("inf") if next(overflowing) else gradient

    handle = decoder.norm.weight.register_hook(spoil)
    scale = LossScale(8.0, growth_interval=3)
    scaled, plain = (make_stepper(decoder, clip, pieces, each) for each in (scale, None))
    bounded = 0
    for step, (moves, expected_scale) in enumerate(zip(MOVED, SCALES, strict=True)):
        assert scale.scale == expected_scale
        batch, limit = make_batch(step), scaled.clipper.limit()
        overflowing = itertools.cycle([not moves])
        result = scaled(step, batch)
        assert result.moved == moves
        if not moves:
            assert scaled.clipper.state() == plain.clipper.state(), "an overflow teaches no norm"
            continue
        expected = plain(step, batch)
        assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-12)
        applied = min(result.gradient_norm, limit or float("inf"))
        assert scaled.optimizer.norm == pytest.approx(applied, rel=1e-12)
        bounded += applied < result.gradient_norm
        for ours, theirs in zip(
            scaled.optimizer.gradients[-1], plain.optimizer.gradients[-1], strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-15)
    assert (bounded > 0) == (clip.kind != "none")
    assert scaled.clipper.state() == pytest.approx(plain.clipper.state(), rel=1e-12)
    handle.remove()


@pytest.mark.parametrize(("clip", "pieces"), [(NoClip(), 2), (NormClip(max_norm=0.5), 1)])
def test_what_float16_reports_is_what_it_applies(clip, pieces):
    decoder = make_decoder(torch.float32)
    scale = LossScale(64.0, growth_interval=2)
    stepper = make_stepper(decoder, clip, pieces, scale, "float16")
    exact = make_stepper(decoder, clip, pieces)
    for step in range(5):
        result, expected = stepper(step, make_batch(step)), exact(step, make_batch(step))
        assert result.moved
        assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=0.02)
        limit = clip.build().limit() or float("inf")
        applied = min(result.gradient_norm, limit)
        assert stepper.optimizer.norm == pytest.approx(applied, rel=1e-5)
    assert scale.scale == 256.0


def test_the_weights_move_as_without_a_scale_on_the_very_step_that_it_grows():
    ends = []
    for scale in (None, LossScale(8.0, growth_interval=1)):
        decoder = make_decoder()
        parameters = [RoleParameter(n, "matrix", p) for n, p in decoder.named_parameters()]
        stepper = make_stepper(decoder, NormClip(max_norm=0.4), scale=scale)
        # An epsilon that matters: Adam forgives a gradient that is halved on every step.
        stepper.optimizer = AdamW(epsilon=1.0).build(parameters)
        for step in range(3):
            stepper(step, make_batch(step))
        ends.append([parameter.detach().clone() for parameter in decoder.parameters()])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_optimizer_is_told_the_rate_of_its_own_step():
    stepper = make_stepper(make_decoder(), NoClip())
    schedule, steps = TrainSettings().schedule, TrainSettings().steps
    for step in (0, 5, 400):
        result = stepper(step, make_batch(0))
        assert stepper.optimizer.told[-1] == (step, schedule.multiplier(step, steps))
        assert result.learning_rate == 1.0 * schedule.multiplier(step, steps)


def test_an_adaptive_limit_does_not_know_the_norm_that_it_bounds():
    stepper = make_stepper(make_decoder(), AdaptiveClip(percentile=100))
    stepper.clipper.observe(1e-3)
    result = stepper(0, make_batch(0))
    assert result.gradient_norm > 0.1
    assert stepper.optimizer.norm == pytest.approx(1e-3, rel=1e-9)
    assert stepper.clipper.limit() == result.gradient_norm  # the next step's


@pytest.mark.parametrize("limit", [1e-12, 1e-30])
def test_a_limit_holds_however_small_it_is(limit):
    stepper = make_stepper(make_decoder(), NormClip(max_norm=limit))
    stepper(0, make_batch(0))
    assert stepper.optimizer.norm == pytest.approx(limit, rel=1e-9)


def test_a_batch_without_a_target_teaches_no_limit():
    stepper = make_stepper(make_decoder(), AdaptiveClip(percentile=1))
    for block in [*stepper.decoder.blocks, *(each.block for each in stepper.decoder.mtp)]:
        block.feedforward.z_loss = 0.0
    batch = make_batch(0)
    nothing = TokenBatch(batch.tokens, torch.full_like(batch.targets, IGNORE))
    assert stepper(0, nothing).gradient_norm == 0.0
    assert stepper.clipper.limit() is None
    assert stepper(1, batch).gradient_norm == pytest.approx(stepper.optimizer.norm)


def test_a_failed_step_leaves_nothing_behind():
    decoder = make_decoder(balance="none")
    stepper = make_stepper(decoder, AdaptiveClip(), scale=LossScale(1.0, growth_interval=3))
    stepper(0, make_batch(0))
    before = stepper.clipper.state(), stepper.loss_scale.state()
    handle = decoder.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match=r"norm\.weight is not finite"):
        stepper(1, make_batch(1))
    handle.remove()
    assert (stepper.clipper.state(), stepper.loss_scale.state()) == before
    assert all(parameter.grad is None for parameter in decoder.parameters())
    assert len(stepper.optimizer.gradients) == 1


def test_a_scale_that_cannot_be_halved_is_not_to_blame():
    assert not LossScale(2.0).exhausted
    assert LossScale(1.0).exhausted
    stepper = make_stepper(make_decoder(), NoClip(), scale=LossScale(2.0))
    handle = stepper.decoder.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert not stepper(0, make_batch(0)).moved
    assert stepper.loss_scale.scale == 1.0
    with pytest.raises(TrainingError):
        stepper(1, make_batch(1))
    handle.remove()
