"""Perplexity by strides is what the recipe in the documentation of transformers gives.

Its windows hold inputs and targets together, so `max_length` is one more than the window here; the
mean there divides by other counts, so the tokens are compared one by one.
"""

from __future__ import annotations

import pytest
import torch

from coterie.evaluate import Scoring, token_logprobs
from coterie.exchange.huggingface import import_folder
from tests.exchange.huggingface.conftest import VOCABULARY, in_double, make_foreign


def recipe(model, tokens: list[int], max_length: int, stride: int) -> torch.Tensor:
    """Return the log-probabilities that the recipe's masks leave to be scored, in order."""
    found, previous = [], 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + max_length, len(tokens))
        inputs = torch.tensor([tokens[begin:end]])
        labels = inputs.clone()
        labels[:, : -(end - previous)] = -100
        with torch.no_grad():
            scores = model(inputs).logits[0, :-1].log_softmax(-1)
        shifted = labels[0, 1:]
        scored = shifted != -100
        found.append(scores[scored].gather(-1, shifted[scored][:, None])[:, 0])
        previous = end
        if end == len(tokens):
            break
    return torch.cat(found)


@pytest.mark.parametrize(("max_length", "stride"), [(24, 8), (24, 23), (9, 1), (100, 50)])
def test_sliding_windows_are_the_recipe_of_transformers(max_length, stride, tmp_path):
    with in_double():
        model = make_foreign("llama").double().eval()
        model.save_pretrained(tmp_path)
        decoder = import_folder(tmp_path, dtype=None).decoder
        tokens = torch.randint(VOCABULARY, (70,)).tolist()
        expected = recipe(model, tokens, max_length, stride)
        got = token_logprobs(decoder, tokens, Scoring(window=max_length - 1, stride=stride))
    assert len(expected) == len(got) == 69
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
