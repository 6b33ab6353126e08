"""What texts have in common is computed once per engine, and no text changes by it."""

import pytest
import torch

from coterie.generate import Engine, SamplingSettings
from coterie.generate.cache import PagedCacheSettings, PrunedCacheSettings
from coterie.generate.request import Request
from coterie.generate.session import DecodeSession, position_limit
from coterie.model import DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes

pytestmark = pytest.mark.any_device

CACHE = PagedCacheSettings(block=8)


def build(**changes):
    values = {
        "layers": 2, "width": 16, "context": 512, "vocab_size": 257,
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
        "initial": {"std": 0.3, "outputs": "plain"},
    } | changes  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0))
    return decoder.double()


def engine():
    return Engine(build(), Bytes().build([]))


def sampling(**changes):
    return SamplingSettings(max_tokens=12, temperature=0, cache=CACHE, **changes)


SYSTEM = "You are the chorus. Speak in verse, and never of yourself. "


def test_a_prompt_asked_again_and_the_next_turn_are_found():
    own, plain = engine(), engine()
    first = own.generate(SYSTEM + "Enter the king.", sampling())
    assert own.cache_stats.hit_rate == 0
    read = first.prompt_tokens
    turn = SYSTEM + "Enter the king." + first.text + " Exit."
    for prompt in (SYSTEM + "Enter the king.", turn, SYSTEM + "Alarum."):
        before = own.cache_stats.found
        got = own.generate(prompt, sampling())
        assert (
            got.text == plain.generate(prompt, SamplingSettings(max_tokens=12, temperature=0)).text
        )
        assert own.cache_stats.found - before >= len(SYSTEM) // 8 * 8
        read += got.prompt_tokens
    assert own.cache_stats.asked == read
    assert 0.5 < own.cache_stats.hit_rate < 1
    assert own.cache_stats.nbytes > 0


def test_samples_and_requests_side_by_side_give_what_each_gives_alone():
    own, plain = engine(), engine()
    prompts = [SYSTEM + each for each in ("One.", "Two.", "Three, and more.", "One.")] + ["Else"]
    requests = [
        Request(prompt, sampling().model_copy(update={"temperature": 0.9}), seed)
        for seed, prompt in enumerate(prompts)
    ]
    for _ in range(2):
        for made, request in zip(own.generate_many(requests), requests, strict=True):
            alone = SamplingSettings(max_tokens=12, temperature=0.9, seed=request.seed)
            assert made.text == plain.generate(request.prompt, alone).text
    samples = own.generate_samples(SYSTEM, 3, sampling())
    greedy = SamplingSettings(max_tokens=12, temperature=0)
    assert {each.text for each in samples} == {plain.generate(SYSTEM, greedy).text}


def test_a_pruned_text_goes_on_beyond_the_context():
    decoder = build(context=64)
    small, large = PrunedCacheSettings(size=32), PrunedCacheSettings(size=64)
    assert position_limit(decoder, small) is None
    assert position_limit(decoder, large) == position_limit(decoder) == 64
    assert position_limit(build(context=64, position="learned"), small) == 64
    session, sizes = DecodeSession(decoder, small), []
    for at in range(200):
        session.read([[at % 11]])
        sizes.append(session.cache_nbytes)
    assert max(sizes[100:]) == max(sizes[36:100])
