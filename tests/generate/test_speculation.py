"""Speculation changes when tokens are computed, and never which."""

import functools

import pytest
import torch

from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.speculation import Controller
from coterie.generate.text import Text
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters

pytestmark = pytest.mark.any_device

PROMPT = "abcabdabcabd"


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Let texts guess at every step, whatever that costs here."""
    monkeypatch.setattr(Controller, "wants", True)
    monkeypatch.setattr(Controller, "note", lambda *given, **named: None)


@functools.cache
def engine(window: int | None = None, learned: bool = False, **changes) -> Engine:
    tokenizer = Characters().build(["abcdefgh"])
    changes |= {"position": {"kind": "learned"}} if learned else {}
    changes |= {"mtp": {"depth": 2, "normalised": not learned}}
    decoder = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 32, "vocab_size": tokenizer.vocab_size,
        "attention": {"kind": "grouped", "heads": 2, "window": window},
    } | changes).build(torch.Generator().manual_seed(3)).double()  # fmt: skip
    with torch.no_grad():
        for number, parameter in enumerate(decoder.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return Engine(decoder, tokenizer)


GUESSES = {
    "lookup": {"kind": "lookup", "shortest": 1}, "mtp": {"kind": "mtp", "tokens": 4},
}  # fmt: skip
every_way = pytest.mark.parametrize("way", GUESSES)


def both(own: Engine, way: str = "lookup", **values):
    """Return a text without guesses and one with them."""
    values = {"max_tokens": 34, "min_tokens": 34, "temperature": 0} | values
    plain = own.generate(PROMPT, SamplingSettings.model_validate(values))
    guess = {"speculation": GUESSES[way]}
    guessed = own.generate(PROMPT, SamplingSettings.model_validate(guess | values))
    assert plain.drafted == 0
    return plain, guessed


CACHES = ["full", "window", "none"]
MODELS = [{}, {"window": 5}, {"learned": True}]
# Every model and every cache by default; each with each in `make test-all`.
WAYS = [
    pytest.param(way, model, cache, marks=[] if row == column else pytest.mark.exhaustive)
    for way in GUESSES
    for row, model in enumerate(MODELS)
    for column, cache in enumerate(CACHES)
]


@pytest.mark.parametrize(("way", "model", "cache"), WAYS)
def test_greedy_texts_are_the_same_beyond_the_context_too(way, model, cache):
    plain, guessed = both(engine(**model), way, cache=cache)
    assert guessed.tokens == plain.tokens
    assert guessed.logprobs == pytest.approx(plain.logprobs)
    assert guessed.text == plain.text
    assert guessed.drafted > 2 or way == "mtp"  # modules of random weights rarely guess right


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 20))]


@every_way
@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_texts_are_the_same_for_each_seed(seed, way):
    values = {
        "temperature": 0.7, "top_p": 0.9, "frequency_penalty": 0.05, "seed": seed,
        "repetition_penalty": 1.05, "constraints": [{"kind": "forbid", "texts": ["aa", "bcb"]}],
    }  # fmt: skip
    plain, guessed = both(engine(), way, **values | {"max_tokens": 20, "min_tokens": 20})
    assert guessed.tokens == plain.tokens


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", GUESSES)
def test_20_000_draws_have_the_distribution_of_the_model(way):
    """Chi-square, of the place of the first guess and, where that was right, of the one after."""
    own = engine()
    values = {"temperature": 1.0, "speculation": GUESSES[way]}
    settings = SamplingSettings.model_validate(values)
    session, past = own.new_session(settings), own.encode_prompt(PROMPT)
    session.read([past[:-1]])
    drafter = settings.speculation.build(own.decoder)
    assert drafter is not None
    guess = drafter.draft(past, 1, lambda: session.take_states(0))
    logits = session.read_last([[past[-1], *guess]], 2)[0]
    found = torch.zeros(2, logits.shape[1])
    for seed in range(20_000):
        text = Text(Request(past, settings, seed), past, own.tokenizer)
        for place, piece in enumerate(text.advance_past(guess, logits)):
            found[place, piece.token] += 1
    assert found[1].sum() == found[0, guess[0]] > 100
    for counts, row in zip(found, logits, strict=True):
        known = row[: own.tokenizer.vocab_size].clone()
        if own.tokenizer.unknown_token is not None:
            known[own.tokenizer.unknown_token] = -torch.inf
        shares = known.float().softmax(-1)
        expected = shares * counts.sum()
        usual = expected > 5
        off = ((counts[: len(known)] - expected).square() / expected)[usual].sum()
        freedom = int(usual.sum()) - 1
        assert off < freedom + 4 * (2 * freedom) ** 0.5 + 6  # beyond the 99.9th percentile


def test_ends_and_lengths_hold():
    plain, guessed = both(engine(), stop=["ab"], min_tokens=0, temperature=1.0)
    assert (guessed.text, guessed.finish_reason) == (plain.text, plain.finish_reason)
    for most in (1, 2, 5):
        plain, guessed = both(engine(), max_tokens=most, min_tokens=0)
        assert guessed.tokens == plain.tokens


def test_fewer_calls_are_made():
    own, calls = engine(), []
    handle = own.decoder.register_forward_pre_hook(lambda module, given: calls.append(given))
    _, guessed = both(own, max_tokens=12, min_tokens=12)
    handle.remove()
    assert len(calls) == 12 + 12 - guessed.drafted


def test_texts_beside_each_other_are_those_alone():
    own = engine()
    settings = SamplingSettings.model_validate(
        {"max_tokens": 8, "temperature": 1.0, "speculation": "lookup"}
    )
    for number, made in enumerate(own.generate_samples(PROMPT, 2, settings)):
        seed = settings.model_copy(update={"seed": settings.seed + number})
        assert made.tokens == own.generate(PROMPT, seed).tokens
