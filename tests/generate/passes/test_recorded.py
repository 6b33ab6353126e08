"""Recorded steps: where rows end, what is recorded anew, and what cannot be recorded at all.

That whole texts are the sampler's is in `test_scheduler`.
"""

import pytest
import torch

from coterie.generate.cache import FullCacheSettings
from coterie.generate.passes import Call, EagerPass
from coterie.generate.passes.recorded import RecordedPass
from coterie.generate.sampling import Sampler, SamplingSettings
from coterie.generate.session import cache_specs, evaluation
from coterie.model import DecoderSettings

BASE = {"layers": 1, "width": 16, "context": 64, "vocab_size": 40}
SAMPLED = SamplingSettings(temperature=1.5)


@pytest.fixture
def decoder():
    decoder = DecoderSettings.model_validate(BASE).build(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(3)
    return decoder


class Records:
    """Counts what is recorded."""

    number = 0

    def __call__(self, step):
        self.number += 1
        for _ in range(3):
            step()
        return step


def read_prompt(decoder, rows):
    cache = FullCacheSettings(room=8).build(cache_specs(decoder))
    with evaluation(decoder):
        EagerPass(decoder).read(Call(torch.ones(rows, 3, dtype=torch.long), cache))
    return cache


def steps(decoder, way, cache, rules, most):
    tokens = torch.ones(len(rules), 1, dtype=torch.long)
    with evaluation(decoder):
        return way.steps(Call(tokens, cache), rules, most)


def test_rows_end_by_their_rules_and_the_cache_with_the_longest(decoder):
    way = RecordedPass(decoder, record=Records())
    (free,) = steps(decoder, way, read_prompt(decoder, 1), [Sampler(SAMPLED).rule(40, 99)], 4)
    place = next(at for at in range(1, 4) if free.tokens[at] not in free.tokens[:at])
    ending = Sampler(SAMPLED, ends=[39, free.tokens[place]]).rule(40, 99)
    short = Sampler(SAMPLED).rule(40, 1)
    cache = read_prompt(decoder, 2)
    made = steps(decoder, way, cache, [ending, short], 4)
    assert [each.tokens for each in made] == [free.tokens[: place + 1], free.tokens[:1]]
    assert [len(each.logprobs) for each in made] == [place + 1, 1]
    assert cache.lengths == (3 + place + 1,) * 2


def test_a_step_is_recorded_once_for_its_memory(decoder):
    records = Records()
    way, cache = RecordedPass(decoder, record=records), read_prompt(decoder, 1)
    rule = Sampler(SAMPLED).rule(40, 99)
    for _ in range(3):
        steps(decoder, way, cache, [rule], 1)
    assert records.number == 1
    steps(decoder, way, cache, [rule], 4)  # its room doubles
    assert records.number == 2
    with evaluation(decoder):
        way.read(Call(torch.ones(1, 1, dtype=torch.long), cache))  # hands out logits
    assert records.number == 3


def test_what_cannot_be_recorded_is_told_and_goes_on_without(decoder):
    told = []

    def fails(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    way, cache = RecordedPass(decoder, told.append, record=fails), read_prompt(decoder, 1)
    assert steps(decoder, way, cache, [Sampler(SAMPLED).rule(40, 99)], 4) is None
    assert ["not permitted" in each for each in told] == [True]
    assert "not permitted" in way.refuses(Call(torch.ones(1, 1, dtype=torch.long), cache))
    assert cache.lengths == (3,)


def test_positions_that_the_model_does_not_have_are_left_to_the_next_pass():
    settings = DecoderSettings.model_validate(BASE | {"position": "learned", "context": 5})
    decoder = settings.build()
    way, cache = RecordedPass(decoder, record=Records()), read_prompt(decoder, 1)
    (made,) = steps(decoder, way, cache, [Sampler(SAMPLED).rule(40, 99)], 4)
    assert len(made.tokens) == 2
    assert "used up" in way.refuses(Call(torch.ones(1, 1, dtype=torch.long), cache))


def test_counted_ngrams_know_the_tokens_that_were_chosen():
    settings = DecoderSettings.model_validate(BASE | {"ngram": {"order": 4, "entries": 500}})
    decoder = settings.build(torch.Generator().manual_seed(0)).eval()
    decoder.ngram.count([torch.arange(400) ** 3 // 7 % 40])
    greedy = Sampler(SamplingSettings(temperature=0.0)).rule(40, 99)
    way = RecordedPass(decoder, record=Records())
    (made,) = steps(decoder, way, read_prompt(decoder, 1), [greedy], 8)
    text = [1] * 4
    for token in made.tokens:
        assert token == int(decoder(torch.tensor([text])).logits[0, -1].argmax())
        text.append(token)
    assert len(set(made.tokens)) > 2
