"""The decoding benchmark: what is counted, against sides whose times are known."""

from __future__ import annotations

import pytest
import torch

from coterie.benchmark import Ceilings, Side, benchmark_decode
from coterie.benchmark.decode import our_side
from coterie.benchmark.turns import Timing
from coterie.foundation.errors import UserError
from coterie.generate import SamplingSettings
from coterie.model import DecoderSettings, count
from coterie.tokenizer.settings import parse_tokenizer

CEILINGS = Ceilings(
    threads=2, read=8e9, matvec=4e9, copy=2e10, products=1e11, products_bfloat16=1e11
)


@pytest.fixture(scope="module")
def decoder():
    settings = {"layers": 1, "width": 16, "context": 64, "vocab_size": 257}
    return DecoderSettings.model_validate(settings).build(torch.Generator().manual_seed(0)).eval()


def known(name: str, *rests: float, tokens=(5, 6, 7), most: int = 99) -> Side:
    """Return a side whose decodings take these seconds, after one to warm up."""
    left = iter([100.0, *rests])

    def way(prompts, number):
        if prompts.shape[0] > most:
            return None
        return lambda: Timing(first=0.25, rest=next(left), steps=number - 1, tokens=tokens)

    return Side(name, way)


def test_rates_are_medians_and_ratios_are_of_pairs(decoder):
    sides = [known("ours", 1, 2, 4), known("theirs", 3, 2, 8, tokens=(5, 6, 8))]
    table = benchmark_decode(decoder, sides, CEILINGS, tokens=3, rounds=3)
    active = count(decoder.settings).active_parameters
    assert table.bound == pytest.approx(8e9 / (4 * active))
    ours, theirs = table.rows
    assert (ours.rate, theirs.rate) == (2 / 2, 2 / 3)  # the first token is timed apart
    assert ours.first == 0.25
    assert theirs.of_bound == pytest.approx(theirs.rate / table.bound)
    assert theirs.slower == (2.0, 1.0, 3.0)
    assert (ours.same, theirs.same) == (3, 2)


def test_several_texts_count_together_and_who_cannot_is_left_out(decoder):
    sides = [known("ours", 1, 1), known("single", 1, most=1)]
    table = benchmark_decode(decoder, sides, CEILINGS, batches=(4,), tokens=3, rounds=1)
    (row,) = table.rows
    assert (row.name, row.batch, row.rate, row.of_bound) == ("ours", 4, 4 * 2 / 1, None)


def test_our_engine_decodes_as_many_tokens_as_asked_for(decoder):
    tokenizer = parse_tokenizer("bytes").build()
    side = our_side(decoder, tokenizer, SamplingSettings())
    timing = side.way(torch.randint(0, 250, (2, 4)), 6)()
    assert timing.steps == 5
    assert len(timing.tokens) == 6
    assert timing.first > 0 < timing.rest


@pytest.mark.parametrize(
    ("prompt", "tokens", "words"), [(60, 8, "context of 64"), (4, 1, "least 2")]
)
def test_what_cannot_be_measured_is_refused(decoder, prompt, tokens, words):
    with pytest.raises(UserError, match=words):
        benchmark_decode(decoder, [], CEILINGS, prompt=prompt, tokens=tokens)
