"""The best of several texts is the likeliest per token, everywhere where texts are made whole."""

import json

import pytest
import torch
from pydantic import ValidationError

from coterie.foundation.errors import UserError
from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.resumable import ResumableText
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters


class OnlyOdd:
    """A constraint with a state of its own: each text must have a copy."""

    def __init__(self, fails: bool = False):
        self.fails, self.seen = fails, 0

    def mask(self, logits):
        if self.fails:
            raise LookupError("no such text")
        masked = logits.clone()
        masked[self.seen % 2 :: 2] = -torch.inf
        return masked

    def accept(self, token):
        self.seen += 1

    def rollback(self, count):
        self.seen -= count


@pytest.fixture(scope="module")
def engine():
    tokenizer = Characters().build(["abcdefgh "])
    model = {"layers": 1, "width": 16, "context": 32, "vocab_size": tokenizer.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    torch.manual_seed(0)
    return Engine(DecoderSettings.model_validate(model).build().double(), tokenizer)


def settings(**values) -> SamplingSettings:
    return SamplingSettings.model_validate({"max_tokens": 12, "seed": 5} | values)


def mean(made) -> float:
    return sum(made.logprobs) / len(made.logprobs)


def test_the_likeliest_of_the_following_seeds_is_kept(engine):
    each = engine.generate_samples("ab", 6, settings(temperature=1.3))
    best = engine.generate("ab", settings(temperature=1.3, best_of=6))
    assert best.scores == pytest.approx([mean(one) for one in each])
    assert best.text == max(each, key=mean).text
    assert best.score == max(best.scores)
    two = engine.generate_samples("ab", 2, settings(temperature=1.3, best_of=3))
    assert [one.scores for one in two] == [best.scores[:3], best.scores[3:]]
    assert engine.generate("ab", settings()).scores == ()


def test_streams_and_requests_give_the_best_at_their_end(engine):
    best = engine.generate("ab", settings(best_of=3))
    pieces = list(engine.stream("ab", settings(best_of=3)))
    assert "".join(piece.text for piece in pieces) == best.text
    asked = [
        Request("ab", settings(best_of=3)),
        Request("ab", settings()),
        Request("c", settings()),
    ]
    made = engine.generate_many(asked)
    assert [one.text for one in made[:2]] == [best.text, engine.generate("ab", settings()).text]
    assert made[2].text == engine.generate("c", settings()).text


def test_each_candidate_has_constraints_of_its_own(engine):
    given = OnlyOdd()
    (made,) = engine.generate_many([Request("ab", settings(best_of=4), constraints=(given,))])
    assert given.seen == 0
    assert len(made.scores) == 4
    assert [token % 2 for token in made.tokens[:3]] == [1, 0, 1]
    (failed,) = engine.generate_many(
        [Request("ab", settings(best_of=2), constraints=(OnlyOdd(True),))]
    )
    assert isinstance(failed.error, LookupError)
    assert failed.scores == (None, None)
    json.dumps(failed.scores)


def test_what_is_not_whole_texts_is_refused(engine):
    with pytest.raises(UserError, match="known only when all have ended"):
        engine.submit(Request("ab", settings(best_of=2)))
    with pytest.raises(UserError, match="known only when all have ended"):
        ResumableText(engine, settings(best_of=2), [1])
    for values in ({"temperature": 0}, {"logprobs_mode": "processed"}, {"beams": {"width": 2}}):
        with pytest.raises(ValidationError, match="best_of"):
            settings(best_of=2, **values)
