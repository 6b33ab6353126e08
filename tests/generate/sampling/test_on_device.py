"""Tokens chosen on a device are those that the sampler chooses from the same logits."""

import pytest
import torch

from coterie.generate.sampling import Sampler, SamplingSettings
from coterie.generate.sampling.on_device import DeviceChoice

STEPS, ROWS, SIZE, VOCABULARY = 30, 7, 60, 64


def chosen(temperature, logits, truncations):
    settings = [SamplingSettings(temperature=temperature, **each) for each in truncations]
    samplers = [Sampler(each, seed, banned=[seed]) for seed, each in enumerate(settings)]
    rules = [each.rule(SIZE, 99) for each in samplers]
    choice = DeviceChoice(ROWS, SIZE, STEPS, temperature == 0, torch.device("cpu"))
    choice.load(rules)
    for step in range(STEPS):
        tokens, logprobs = choice(logits[step], torch.tensor([step]))
        yield samplers, step, tokens.tolist(), logprobs.tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_every_setting(temperature, truncations):
    logits = torch.randn(STEPS, ROWS, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2
    for samplers, step, tokens, logprobs in chosen(temperature, logits, truncations):
        for row, sampler in enumerate(samplers):
            expected = sampler.choose(logits[step, row, :SIZE], [])
            assert (row, tokens[row]) == (row, expected.token)
            assert logprobs[row] == pytest.approx(expected.logprob, abs=2e-6)


def test_logits_that_are_no_numbers_give_no_token(truncations):
    logits = torch.zeros(STEPS, ROWS, VOCABULARY)
    logits[0, 2, 5] = float("nan")
    _, _, tokens, _ = next(chosen(1.0, logits, truncations))
    assert [token == -1 for token in tokens] == [row == 2 for row in range(ROWS)]
