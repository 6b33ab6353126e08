"""Every token's log-probability against the definition, alone and beside others."""

import pytest
import tokenizers
import torch
from tokenizers import models

from coterie.evaluate.routing import LoadCounter
from coterie.evaluate.scoring import (
    Scoring,
    framed_text,
    score_text,
    score_texts,
    sequence_logprobs,
    token_logprobs,
)
from coterie.foundation.errors import DataError, UserError
from coterie.model import DecoderSettings
from coterie.model.position import LearnedPosition
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.subword import SubwordTokenizer
from tests.evaluate.conftest import TEXT


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
    got = token_logprobs(decoder.train(), tokens, Scoring(stride=stride))
    assert decoder.training
    expected = by_definition(decoder, tokens, stride)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=0)


def test_a_text_shorter_than_the_context(model):
    decoder, tokenizer = model
    score = score_text(decoder, tokenizer, "To")
    assert len(score.tokens) == len(score.logprobs) == 2


def test_a_text_of_one_window_is_the_plain_computation_in_float64(model):
    decoder, tokenizer = model
    tokens = framed_text(tokenizer, TEXT[:8])
    with torch.no_grad():
        logits = decoder.eval()(torch.tensor([tokens[:-1]])).logits[0]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
    got = score_text(decoder, tokenizer, TEXT[:8]).logprobs
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scoring", [Scoring(), Scoring(stride=3), Scoring(window=5)])
def test_texts_score_the_same_alone_and_side_by_side(model, scoring):
    decoder, tokenizer = model
    texts = [TEXT, "To", TEXT[:9], "b", TEXT[5:30]]
    told = []
    together = score_texts(decoder, tokenizer, texts, scoring, progress=told.append)
    for text, found in zip(texts, together, strict=True):
        alone = score_text(decoder, tokenizer, text, scoring)
        assert found.text == text
        assert found.tokens == alone.tokens
        torch.testing.assert_close(found.logprobs, alone.logprobs, atol=1e-12, rtol=0)
    assert told == sorted(told)
    assert told[-1] == sum(map(len, texts))


def test_padding_does_not_lengthen_a_text():
    """With dynamic scaling the length of a text decides how its positions turn."""
    settings = DecoderSettings.model_validate({
        "layers": 1, "width": 8, "context": 16, "vocab_size": 7,
        "attention": {"kind": "grouped", "heads": 2},
        "position": {
            "kind": "rotary", "scaling": {"kind": "dynamic", "factor": 4, "original_context": 4},
        },
    })  # fmt: skip
    decoder = settings.build()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    short, long = [1, 2, 3, 4, 5, 6, 1], [0, 2, 4, 6, 1, 3, 5] * 2
    alone = token_logprobs(decoder, short)
    torch.testing.assert_close(sequence_logprobs(decoder, [short, long])[0], alone)


def test_padding_is_routed_nowhere():
    settings = DecoderSettings.model_validate({
        "layers": 1, "width": 8, "context": 16, "vocab_size": 7,
        "attention": {"kind": "grouped", "heads": 2},
        "feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2},
    })  # fmt: skip
    loads = LoadCounter()
    sequence_logprobs(settings.build(), [[1, 2, 3, 4, 5, 6], [0, 2, 4], [3]], loads=loads)
    (layer,) = loads.health()
    assert layer.tokens == 5 + 2
    assert sum(layer.load) == 2 * 7


def test_a_window_may_be_longer_than_the_context_where_positions_have_no_end(model):
    decoder, tokenizer = model
    tokens = framed_text(tokenizer, TEXT)
    with torch.no_grad():
        logits = decoder.eval()(torch.tensor([tokens[:-1]])).logits[0]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
    got = token_logprobs(decoder, tokens, Scoring(window=64))
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    settings = decoder.settings.model_copy(update={"position": LearnedPosition()})
    with pytest.raises(UserError, match="8"):
        token_logprobs(settings.build(), tokens, Scoring(window=64))


def test_what_cannot_be_scored_is_told(model):
    decoder, tokenizer = model
    with pytest.raises(DataError, match="it is empty"):
        score_texts(decoder, tokenizer, ["To", ""])
    with pytest.raises(DataError, match=r"Token 99 lies outside .* \(0 … "):
        token_logprobs(decoder, [1, 99])
    with pytest.raises(UserError, match="between 1 and the window of 4 tokens"):
        token_logprobs(decoder, [1, 2], Scoring(window=4, stride=8))
    assert token_logprobs(decoder, [1]).shape == (0,)


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
