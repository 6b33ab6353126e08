"""Tokens chosen by the program are those that the sampler chooses from the same logits."""

import pytest
import torch

from coterie.generate.cache.stack import Placement
from coterie.generate.native.program import Program
from coterie.generate.request import NO_TOKEN
from coterie.generate.sampling import Sampler, SamplingSettings
from coterie.model import DecoderSettings

TOKENS = 24


def build(vocab, **changes):
    values = {"layers": 1, "width": 16, "context": 64, "vocab_size": vocab} | changes
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(3)  # likelier and less likely tokens
    return decoder


def room(rows):
    return [Placement(torch.zeros(rows, 4, 64, 4), torch.zeros(rows, 4, 64, 4))]


def sampled(program, samplers, vocab, tokens=TOKENS):
    """Choose with the samplers from the program's logits, step by step."""
    rows, caches = len(samplers), room(len(samplers))
    texts, logprobs = [[row + 1] for row in range(rows)], [[] for _ in range(rows)]
    for at in range(tokens):
        latest = [text[-1] for text in texts]
        past = [text[:-1] for text in texts]
        logits = program.step(latest, range(rows), [at] * rows, caches, past)
        for row, sampler in enumerate(samplers):
            choice = sampler.choose(logits[row, :vocab], texts[row])
            texts[row].append(choice.token)
            logprobs[row].append(choice.logprob)
    return [text[1:] for text in texts], logprobs


def chosen(program, rules, most, calls=1):
    """Let the program choose, in so many calls."""
    rows, caches = len(rules), room(len(rules))
    texts, logprobs = [[row + 1] for row in range(rows)], [[] for _ in range(rows)]
    for call in range(calls):
        latest, at = [text[-1] for text in texts], [call * most] * rows
        now = [rule._replace(made=rule.made + call * most) for rule in rules]
        made = program.steps(latest, at, caches, now, most, [text[:-1] for text in texts])
        for row, each in enumerate(made):
            texts[row] += each.tokens
            logprobs[row] += each.logprobs
    return [text[1:] for text in texts], logprobs


@pytest.mark.parametrize(("vocab", "size"), [(40, 40), (1500, 1490)])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_every_setting(vocab, size, temperature, truncations):
    program = Program(build(vocab), threads=2)
    settings = [SamplingSettings(temperature=temperature, **each) for each in truncations]
    settings += [SamplingSettings(temperature=temperature, seed=8)]

    def samplers():
        return [Sampler(each, banned=[number]) for number, each in enumerate(settings)]

    rules = [each.rule(size, 1000) for each in samplers()]
    expected, logprobs = sampled(program, samplers(), size)
    found, told = chosen(program, rules, TOKENS // 3, calls=3)
    assert found == expected
    for mine, theirs in zip(told, logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=2e-5)
    assert all(number not in text for number, text in enumerate(found))
    assert len(set(map(tuple, found))) > (1 if temperature else 0)


def test_tokens_that_end_a_text_and_the_most_of_each():
    program = Program(build(40), threads=1)
    settings = SamplingSettings(temperature=1.0)
    (text,), _ = chosen(program, [Sampler(settings).rule(40, 1000)], TOKENS)
    place = next(at for at in range(3, TOKENS) if text[at] not in text[:at])
    ending = Sampler(settings, ends=[39, text[place]]).rule(40, 1000)
    short, full = Sampler(settings).rule(40, 2), Sampler(settings).rule(40, 1000)
    caches = room(3)
    found = program.steps([1, 1, 1], [0, 0, 0], caches, [ending, short, full], TOKENS)
    assert [each.tokens for each in found] == [text[: place + 1], text[:2], text]
    late = Sampler(SamplingSettings(temperature=1.0, min_tokens=TOKENS), ends=[text[place]])
    (longer,) = program.steps([1], [0], caches, [late.rule(40, 1000)], TOKENS)
    assert longer.tokens[:place] == text[:place]
    assert len(longer.tokens) == TOKENS
    assert text[place] not in longer.tokens
    # A single step chooses nothing, and the positions are those that it is given.
    again = program.step([1], [2], [0], caches)
    assert torch.equal(again, program.step([1], [0], [0], caches))


def test_tokens_before_are_told_to_ngrams():
    decoder = build(40, embedding={"kind": "ngram", "orders": [2, 3], "rows": 64})
    program = Program(decoder, threads=1)
    settings = SamplingSettings(temperature=1.0)
    expected, _ = sampled(program, [Sampler(settings), Sampler(settings, 5)], 40)
    rules = [Sampler(settings).rule(40, 99), Sampler(settings, 5).rule(40, 99)]
    assert chosen(program, rules, 8, calls=3)[0] == expected


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers(wrong, temperature):
    decoder = build(40)
    with torch.no_grad():
        decoder.head.weight[7] = wrong
    rule = Sampler(SamplingSettings(temperature=temperature)).rule(40, 9)
    (made,) = Program(decoder, threads=1).steps([1], [0], room(1), [rule], 5)
    assert made.tokens == [NO_TOKEN]


@pytest.mark.exhaustive
def test_the_distribution_over_many_draws():
    program = Program(build(12), threads=1)
    settings = SamplingSettings(temperature=0.9, top_k=9, top_p=0.95)
    logits = program.step([3], [0], [0], room(1))[0].clone()
    weights = (logits.double() / 0.9).softmax(-1)
    top = weights.topk(9)
    kept = top.values / top.values.sum()
    number = int((kept.cumsum(0) - kept < 0.95).sum())
    expected = torch.zeros(12, dtype=torch.float64)
    expected[top.indices[:number]] = kept[:number] / kept[:number].sum()
    counts = torch.zeros(12, dtype=torch.float64)
    for seed in range(20_000):
        rule = Sampler(settings, seed).rule(12, 1)
        counts[program.steps([3], [0], room(1), [rule], 1)[0].tokens[0]] += 1
    possible = expected > 0
    assert counts[~possible].sum() == 0
    surprise = ((counts - 20_000 * expected) ** 2 / (20_000 * expected))[possible].sum()
    assert surprise < 27.9  # χ² with 9 degrees of freedom exceeds it once in a thousand times


def test_what_a_rule_cannot_say():
    for changes in (
        {"repetition_penalty": 1.1}, {"frequency_penalty": 0.1}, {"presence_penalty": 0.1},
        {"typical_p": 0.9}, {"logprobs": 2}, {"logprobs_mode": "processed"},
        {"temperature": 0.005},
        {"order": ("top_k", "temperature", "penalties", "top_p", "min_p", "typical_p")},
    ):  # fmt: skip
        assert Sampler(SamplingSettings(**changes)).rule(40, 9) is None, changes
    assert Sampler(SamplingSettings(), banned=[1, 2]).rule(40, 9) is None
    assert Sampler(SamplingSettings(), bias={3: 1.0}).rule(40, 9) is None
    assert Sampler(SamplingSettings(), ends=[0]).rule(2, 9) is None  # nothing may be left
