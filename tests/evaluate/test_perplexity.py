"""Perplexity against the definition, and figures that are the same total spread differently."""

import math

import pytest
import tokenizers
import torch
from tokenizers import models

from coterie.evaluate.perplexity import (
    Perplexity,
    perplexity,
    perplexity_of,
    score_text,
    token_logprobs,
)
from coterie.foundation.errors import DataError
from coterie.model import DecoderSettings
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.settings import Characters
from coterie.tokenizer.subword import SubwordTokenizer

TEXT = "To be, or not to be: that is the question — €"


@pytest.fixture
def model():
    tokenizer = Characters().build([TEXT])
    torch.manual_seed(0)
    settings = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 8, "vocab_size": tokenizer.vocab_size,
        "attention": {"kind": "grouped", "heads": 2}, "dropout": 0.5,
    })  # fmt: skip
    decoder = settings.build().double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return decoder, tokenizer


def by_definition(decoder, tokens, stride):
    """Score token after token, each with all the past that some window gives it."""
    decoder.eval()
    scores = []
    for place in range(1, len(tokens)):
        # The first window whose targets reach this place decides how much past it has.
        start = 0
        while start + 8 < place:
            start += stride
        with torch.no_grad():
            logits = decoder(torch.tensor([tokens[start:place]])).logits[0, -1]
        scores.append(logits.log_softmax(-1)[tokens[place]])
    return torch.stack(scores)


@pytest.mark.parametrize("stride", [8, 3, 1])
def test_token_logprobs_follow_the_definition(model, stride):
    decoder, tokenizer = model
    tokens = [tokenizer.end_of_text, *tokenizer.encode(TEXT)]
    got = token_logprobs(decoder.train(), tokens, stride)
    assert decoder.training
    expected = by_definition(decoder, tokens, stride)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=0)


def test_a_text_shorter_than_the_context(model):
    decoder, tokenizer = model
    score = score_text(decoder, tokenizer, "To")
    assert len(score.tokens) == len(score.logprobs) == 2


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


def test_an_empty_text_is_refused(model):
    with pytest.raises(DataError, match="empty"):
        perplexity(*model, "")


def test_a_hopeless_text_does_not_overflow():
    assert math.isfinite(Perplexity(nats=1e9, tokens=1, characters=1, bytes=1).perplexity)


@pytest.mark.parametrize("text", ["ab", "<s>ab", "ab</s>", "<s>ab</s>"])
def test_a_text_is_framed_once_as_its_tokenizer_frames_it(text):
    """Begin and close are put where they are missing; all but the first token are scored."""
    rules = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, []))
    rules.add_special_tokens(["<s>", "</s>"])
    framed = SubwordTokenizer(rules, conventions=Conventions(("</s>",), "<s>", close="</s>"))
    settings = {"layers": 1, "width": 8, "context": 16, "vocab_size": 4}
    decoder = DecoderSettings.model_validate(settings).build(torch.Generator().manual_seed(2))
    score = score_text(decoder, framed, text)
    assert score.tokens == [2, 3, 1]
    assert torch.equal(score.logprobs, token_logprobs(decoder, [0, 2, 3, 1]))
    with pytest.raises(DataError, match="no text to evaluate"):
        bare = SubwordTokenizer(rules, conventions=Conventions(("</s>",), "<s>"))
        score_text(decoder, bare, "<s>")
