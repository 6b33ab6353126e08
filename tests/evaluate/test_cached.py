"""Reading through a cache: an exact one changes nothing, and what it holds is measured."""

import pytest
import torch

from coterie.evaluate import Scoring, cached_logprobs, sequence_logprobs
from coterie.foundation.errors import UserError
from coterie.generate.cache import (
    FullCacheSettings,
    NoCacheSettings,
    PagedCacheSettings,
    PrunedCacheSettings,
    QuantisedCacheSettings,
)
from coterie.model import DecoderSettings


@pytest.fixture(scope="module")
def decoder():
    settings = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 48, "vocab_size": 13, "attention": "grouped",
        "initial": {"std": 0.3, "outputs": "plain"},
    })  # fmt: skip
    return settings.build(torch.Generator().manual_seed(0))


TEXTS = [
    torch.randint(0, 13, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (2, 49, 130, 130, 17)
]


@pytest.mark.parametrize("cache", [FullCacheSettings(room=48), PagedCacheSettings(block=8)])
@pytest.mark.parametrize("stride", [None, 20])
def test_an_exact_cache_changes_nothing(decoder, cache, stride):
    scoring, told = Scoring(stride=stride), []
    found = cached_logprobs(decoder, TEXTS, cache, scoring, told.append, piece=7)
    for got, expected in zip(
        found.logprobs, sequence_logprobs(decoder, TEXTS, scoring), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert told[-1] == sum(len(text) - 1 for text in TEXTS)
    assert told == sorted(told)
    assert (found.tokens, found.bytes_per_token) == (48, 2 * 2 * 16 * 4)
    assert decoder.training


def test_what_a_cache_loses_shows_and_so_does_what_it_saves(decoder):
    plain = torch.cat(sequence_logprobs(decoder, TEXTS))
    apart = []
    for cache, share in (
        (QuantisedCacheSettings(group=8, recent=8, sinks=0), 0.9),
        (QuantisedCacheSettings(bits=4, group=8, recent=8, sinks=0), 0.8),
        (PrunedCacheSettings(size=8), 0.3),
    ):
        found = cached_logprobs(decoder, TEXTS, cache, piece=2)
        apart.append(float((torch.cat(found.logprobs) - plain).abs().mean()))
        assert found.bytes_per_token < share * 2 * 2 * 16 * 4
    assert 0 < apart[0] < apart[1] < apart[2]


def test_a_cache_that_keeps_nothing_is_refused(decoder):
    with pytest.raises(UserError, match="keeps nothing"):
        cached_logprobs(decoder, TEXTS, NoCacheSettings())
