# pyright: basic
"""Losses and gradients of preferences beside TRL's own, in float64; where TRL is installed."""

from __future__ import annotations

import types
from collections import defaultdict

import pytest
import torch

from coterie.align.preferences import Dpo, Kto

pytest.importorskip("trl", reason="TRL is not installed: pip install 'coterie[peers]'")
pytestmark = pytest.mark.filterwarnings("ignore")
BETA = 0.3
LENGTHS = torch.tensor([4, 6, 2, 3, 5, 1])  # tokens that count, of three pairs: chosen, rejected


def drawn(seed, rows, columns=6):
    generator = torch.Generator().manual_seed(seed)
    logs = -torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    return logs * (torch.arange(columns) < LENGTHS[:rows, None])


def trainer(**fields):
    """Return what TRL's loss asks of its trainer, and no more."""
    gathered = types.SimpleNamespace(
        device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    return types.SimpleNamespace(
        model=torch.nn.Linear(1, 1), accelerator=gathered, beta=BETA, aux_loss_enabled=False,
        precompute_ref_logps=True, _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0, _tp_size=1, **fields,
    )  # fmt: skip


def answering(logs):
    """Return a model whose log-probabilities are these."""
    blank = torch.zeros_like(logs)
    said = types.SimpleNamespace(log_probs=logs, entropy=blank, mean_logits=blank,
                                 is_top1=blank.bool())  # fmt: skip
    return lambda **asked: said


def batch_of(rows):
    mask = torch.cat([torch.zeros(rows, 1), (torch.arange(6) < LENGTHS[:rows, None])], 1).long()
    return {"completion_mask": mask, "input_ids": torch.zeros_like(mask),
            "attention_mask": torch.ones_like(mask)}  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "own"),
    [
        ("sigmoid", {}),
        ("ipo", {"loss": "ipo"}),
        ("aot", {"label_smoothing": 0.2}),  # of one pair it is the smoothed loss
    ],
)
def test_pairs_cost_what_they_do_in_trl(theirs, own):
    from trl.trainer.dpo_trainer import DPOTrainer

    for pair in range(3) if theirs == "aot" else [slice(None)]:
        keep = torch.arange(3)[pair].view(-1)
        rows = torch.cat([keep, keep + 3])
        logs = drawn(1, 6)[rows].requires_grad_()
        reference = drawn(2, 6)[rows].sum(1)
        batch = {name: each[rows] for name, each in batch_of(6).items()}
        chosen, rejected = reference.chunk(2)
        batch |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        fields = {"loss_types": [theirs], "loss_weights": [1.0], "ld_alpha": None,
                  "f_divergence_type": "reverse_kl", "use_weighting": False,
                  "label_smoothing": own.get("label_smoothing", 0.0)}  # fmt: skip
        expected = DPOTrainer._compute_loss(trainer(**fields), answering(logs), batch, False)
        ratios = (logs.sum(1) - reference).chunk(2)
        lengths = tuple(LENGTHS[rows].chunk(2))
        found = Dpo(base="x", beta=BETA, **own).losses(*ratios, lengths).mean()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        slopes = (
            torch.autograd.grad(each, logs, retain_graph=True)[0] for each in (found, expected)
        )
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-15)


def test_marks_cost_what_they_do_in_trl():
    from trl.trainer.kto_trainer import KTOTrainer

    logs, reference = drawn(1, 6).requires_grad_(), drawn(2, 6).sum(1)
    others, of_others = drawn(3, 6).sum(1) + 2, drawn(4, 6).sum(1)
    wanted = torch.tensor([True, False, True, True, False, False])
    fields = {"calculate_KL": True, "loss_type": "kto", "desirable_weight": 1.5,
              "undesirable_weight": 0.5,
              "_compute_kl_logps": lambda model, batch: others}  # fmt: skip
    batch = {**batch_of(6), "label": wanted, "ref_logps": reference, "ref_KL_logps": of_others}
    expected = KTOTrainer._compute_loss(trainer(**fields), answering(logs), batch, False)
    z = (others - of_others).mean().clamp(min=0)
    assert z > 0
    own = Kto(base="x", beta=BETA, desirable=1.5, undesirable=0.5)
    found = own.losses(logs.sum(1) - reference, wanted, z).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    slopes = (torch.autograd.grad(each, logs, retain_graph=True)[0] for each in (found, expected))
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-15)
