"""The validation loss is the mean over every token of the split, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from coterie.batch import IGNORE, TokenBatch
from coterie.data import TokenArray, evaluation_batches
from coterie.evaluate import validate
from coterie.foundation.errors import DataError
from coterie.model import DecoderSettings, selection_biases

TOKENS = torch.randint(19, (77,), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.fixture(scope="module")
def decoder():
    """A decoder in training mode, with dropout, a module of its own in evaluation mode, and a
    bias that steers the selection."""
    torch.manual_seed(0)
    decoder = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 16, "vocab_size": 19, "dropout": 0.5,
        "attention": {"kind": "grouped", "heads": 2}, "initial": {"std": 0.3},
        "feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2,
                        "balance": {"kind": "bias"}},
    }).build().train()  # fmt: skip
    decoder.norm.eval()
    for layer in decoder.blocks:
        layer.feedforward.balance.update(torch.tensor([9, 1, 1, 1]))
    return decoder


def batches(rows: int):
    return evaluation_batches(TokenArray([np.array(TOKENS)]), 16, rows)


def test_the_loss_is_the_mean_over_all_tokens_window_by_window(decoder):
    row, total = torch.tensor(TOKENS), 0.0
    decoder.eval()
    for start in range(0, len(row) - 1, 16):
        inputs, targets = row[start : start + 16], row[start + 1 : start + 17]
        with torch.no_grad():
            logits = decoder(inputs[None, : len(targets)]).logits[0]
        total += float(F.cross_entropy(logits, targets, reduction="sum"))
    decoder.train()
    told: list[int] = []
    for rows in (1, 3, 1000):
        found = validate(decoder, batches(rows), progress=told.append)
        assert found.tokens == told[-1] == len(TOKENS) - 1
        assert found.loss == pytest.approx(total / found.tokens, rel=1e-6)
        assert [sum(layer.load) for layer in found.routing] == [2 * found.tokens] * 2


def test_mode_balance_gradients_and_random_streams_are_as_before(decoder):
    state, biases = torch.get_rng_state(), selection_biases(decoder)
    modes = [module.training for module in decoder.modules()]
    validate(decoder, batches(4))
    assert [module.training for module in decoder.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in decoder.parameters())
    assert len(biases) == 2
    for layer, bias in selection_biases(decoder).items():
        assert bias.any()
        assert torch.equal(bias, biases[layer])


def test_the_forward_pass_runs_under_what_is_given(decoder):
    found = validate(decoder, batches(4), autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    exact = validate(decoder, batches(4)).loss
    assert found.loss != exact
    assert found.loss == pytest.approx(exact, rel=1e-2)


def test_documents_of_a_row_do_not_see_each_other(decoder):
    tokens, targets = torch.tensor([TOKENS[:16]]), torch.tensor([TOKENS[1:17]])
    documents = torch.tensor([[0] * 6 + [1] * 10])
    packed = validate(decoder, [TokenBatch(tokens, targets, documents=documents)])
    parts = [TokenBatch(tokens[:, :6], targets[:, :6]), TokenBatch(tokens[:, 6:], targets[:, 6:])]
    assert packed.loss == pytest.approx(validate(decoder, parts).loss, rel=1e-5)
    assert packed.loss != pytest.approx(validate(decoder, [TokenBatch(tokens, targets)]).loss)


@pytest.mark.parametrize(
    "nothing", [[], [TokenBatch(torch.zeros(1, 4).long(), torch.full((1, 4), IGNORE))]]
)
def test_a_split_without_a_target_is_a_clear_error(decoder, nothing):
    with pytest.raises(DataError, match="no token to predict"):
        validate(decoder, nothing)
