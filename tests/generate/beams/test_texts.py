"""Texts of a search: from the engine, with bad input, and what they consist of."""

import functools

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.generate import Engine, SamplingSettings
from coterie.generate.sampling.settings import ORDER
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters

pytestmark = pytest.mark.any_device

TEXT = "abcdefgh"


@functools.cache
def engine(context: int = 24) -> Engine:
    tokenizer = Characters().build([TEXT])
    decoder = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": context, "vocab_size": tokenizer.vocab_size + 3,
        "attention": {"kind": "grouped", "heads": 2},
    }).build(torch.Generator().manual_seed(3)).double()  # fmt: skip
    with torch.no_grad():
        for number, parameter in enumerate(decoder.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return Engine(decoder, tokenizer)


def settings(**values) -> SamplingSettings:
    return SamplingSettings.model_validate({"max_tokens": 7, "beams": {"width": 4}} | values)


def scored(made, prompt: str) -> float:
    """Return the sum of the log-probabilities of a text's tokens, read all at once."""
    own = engine()
    tokens = [*own.encode_prompt(prompt), *made.tokens]
    with torch.no_grad():
        logits = (
            own.decoder(torch.tensor([tokens], device=next(own.decoder.parameters()).device))
            .logits[0]
            .cpu()
        )
    logits[:, own.tokenizer.vocab_size :] = -torch.inf
    logits[:, own.tokenizer.unknown_token] = -torch.inf
    chosen = logits.log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]
    return float(chosen[-len(made.tokens) :].sum())


def test_the_best_come_first_and_are_scored_by_the_model():
    made = engine().generate_samples("abc", 4, settings())
    assert [each.score for each in made] == sorted((each.score for each in made), reverse=True)
    assert len({each.tokens for each in made}) == 4
    for each in made:
        assert each.prompt == "abc"
        assert scored(each, "abc") == pytest.approx(each.score * len(each.tokens))
        ended = each.finish_reason == "end"
        assert each.text == engine().tokenizer.decode(each.tokens[: -1 if ended else None])


def test_a_width_of_one_writes_what_greedy_does():
    greedy = engine().generate("abc", settings(beams=None, temperature=0, max_tokens=30))
    alone = engine().generate("abc", settings(beams={"width": 1}, max_tokens=30))
    assert alone.tokens == greedy.tokens  # and beyond the context
    assert len(alone.tokens) > 24 or alone.finish_reason == "end"


@pytest.mark.parametrize("cache", ["full", "window", "none"])
def test_every_cache_follows_the_beams(cache):
    made = engine().generate_samples("abc", 3, settings(cache=cache))
    full = engine().generate_samples("abc", 3, settings())
    assert [each.tokens for each in made] == [each.tokens for each in full]


def test_constraints_and_bias_hold():
    forbidden = settings(constraints=[{"kind": "forbid", "texts": ["a", "b", "c"]}])
    for each in engine().generate_samples("abc", 4, forbidden):
        assert not set("abc") & set(each.text)
    (made, *_) = engine().generate_samples("abc", 1, settings(logit_bias={"h": 90}))
    assert made.text == "h" * 7


def test_more_texts_than_beams_are_refused():
    with pytest.raises(UserError, match="5 texts are asked for, but the search follows 4"):
        engine().generate_samples("abc", 5, settings())


def test_a_search_cannot_be_streamed():
    with pytest.raises(UserError, match="only at its end"):
        list(engine().stream("abc", settings()))


@pytest.mark.parametrize(
    "given",
    [
        {"stop": ["a"]}, {"logprobs": 3}, {"temperature": 0.5}, {"top_p": 0.9}, {"seed": 2},
        {"speculation": "lookup"}, {"order": [*reversed(ORDER)]},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_say_in_a_search_is_refused(given):
    with pytest.raises(ValueError, match=f"knows no {next(iter(given))}"):
        settings(**given)
    assert settings(temperature=0).greedy
