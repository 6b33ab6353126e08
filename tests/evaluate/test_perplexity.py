"""Figures that are one total spread differently."""

import math

import pytest
import torch

from coterie.evaluate.perplexity import Perplexity, perplexity, perplexity_of
from coterie.evaluate.scoring import score_text
from tests.evaluate.conftest import TEXT


def test_the_figures_are_one_total(model):
    decoder, tokenizer = model
    score = score_text(decoder, tokenizer, TEXT)
    found = perplexity(decoder, tokenizer, TEXT)
    total = -float(score.logprobs.sum())
    assert found.nats == pytest.approx(total)
    assert found.nats_per_token == pytest.approx(total / len(tokenizer.encode(TEXT)))
    assert found.nats_per_character == pytest.approx(total / len(TEXT))
    assert found.bits_per_byte == pytest.approx(total / math.log(2) / len(TEXT.encode()))
    assert found.perplexity == pytest.approx(math.exp(found.nats_per_token))
    assert found.bytes == len(TEXT) + 4


def test_several_texts_add_up(model):
    decoder, tokenizer = model
    scores = [score_text(decoder, tokenizer, text) for text in ("To be", "question €")]
    both = perplexity_of(scores, tokenizer)
    assert both.nats == pytest.approx(-sum(float(each.logprobs.sum()) for each in scores))
    assert (both.tokens, both.characters, both.bytes) == (15, 15, 17)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(model):
    decoder, tokenizer = model
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
    assert perplexity(decoder, tokenizer, TEXT).perplexity == pytest.approx(
        tokenizer.vocab_size, rel=1e-5
    )


def test_unknown_characters_are_counted(model):
    decoder, tokenizer = model
    assert perplexity(decoder, tokenizer, "To本本").unknown_tokens == 2


def test_a_hopeless_text_does_not_overflow():
    assert math.isfinite(Perplexity(nats=1e9, tokens=1, characters=1, bytes=1).perplexity)
