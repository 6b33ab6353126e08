# pyright: basic
"""The clipped loss with its KL beside TRL's own, in float64; where TRL is installed."""

from __future__ import annotations

import types
from collections import defaultdict

import pytest
import torch

from coterie.align.reinforce.experience import assembled
from coterie.align.reinforce.losses import clipped_objective, kl_estimate
from coterie.align.reinforce.rollout import Written

pytest.importorskip("trl", reason="TRL is not installed: pip install 'coterie[peers]'")
pytestmark = pytest.mark.filterwarnings("ignore")
LOW, HIGH, BETA, MOST = 0.1, 0.3, 0.07, 7
COUNTS = [5, 2, 7, 4]


def drawn(seed, size=0.5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, MOST, generator=generator, dtype=torch.float64) * size


@pytest.mark.parametrize(
    ("loss_type", "aggregation", "level", "beta"),
    [
        ("grpo", "text", "token", 0.0),  # TRL weighs the KL as it does the loss, we by tokens
        ("bnpo", "token", "token", BETA),
        ("dr_grpo", "fixed", "token", 0.0),
        ("grpo", "text", "sequence", 0.0),
    ],
)
def test_a_step_costs_what_it_does_in_trl(loss_type, aggregation, level, beta):
    from trl.trainer.grpo_trainer import GRPOTrainer

    mask = torch.arange(MOST) < torch.tensor(COUNTS)[:, None]
    new, old, reference = drawn(1).requires_grad_(), drawn(2), drawn(3)
    advantages = torch.tensor([1.0, -0.5, 0.3, -2.0], dtype=torch.float64)
    gathered = types.SimpleNamespace(
        gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer = types.SimpleNamespace(
        model=torch.nn.Linear(1, 1), accelerator=gathered, aux_loss_enabled=False, beta=beta,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level=level,
        loss_type=loss_type, epsilon_low=LOW, epsilon_high=HIGH, use_vllm=False,
        current_gradient_accumulation_steps=1, max_completion_length=MOST,
        _entropy_bonus_enabled=False, _metrics=defaultdict(lambda: defaultdict(list)),
        args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False),
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new), None),
    )  # fmt: skip
    blank = torch.zeros(4, 1, dtype=torch.long)
    expected = GRPOTrainer._compute_loss(trainer, None, {
        "prompt_ids": blank, "prompt_mask": blank, "completion_ids": mask.long(),
        "completion_mask": mask.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    })  # fmt: skip

    texts = [Written([0], [1] * n, [0.0] * n, True, "", None) for n in COUNTS]
    batch = assembled(texts, aggregation, MOST)
    weights = batch.weights[:, :MOST].double()
    apart = new - old
    if level == "sequence":
        apart = ((apart * mask).sum(1) / mask.sum(1))[:, None].expand_as(apart)
    lost = clipped_objective(apart, torch.zeros_like(apart), advantages[:, None], LOW, HIGH).loss
    found = (lost * weights).sum() / batch.share.double().sum()
    found = found + beta * (kl_estimate(new, reference, "k3") * mask).sum() / mask.sum()
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)  # weights are float32
    slopes = [torch.autograd.grad(each, new, retain_graph=True)[0] for each in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-12)
    assert (slopes[0][~mask] == 0).all()
