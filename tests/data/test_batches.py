"""Batches: pure, prepared ahead, and complete for evaluation."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.batch import IGNORE
from coterie.data import BatchLoader, TokenArray, evaluation_batches
from coterie.data.mix import Weighted


def row(count):
    return TokenArray([np.arange(count, dtype=np.uint16)])


def loader(count=1000, **options):
    return BatchLoader(row(count), context=8, batch_size=4, seed=1, **options)


def threads():
    return [t for t in threading.enumerate() if t.name == "coterie-batches"]


def test_targets_are_the_tokens_after_the_inputs():
    batch = loader().batch(3)
    assert batch.tokens.shape == batch.targets.shape == (4, 8)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert torch.equal(batch.targets, batch.tokens + 1)
    assert batch.tokens.is_contiguous()
    assert batch.to("cpu").tokens is batch.tokens


def test_text_shorter_than_a_window_goes_round():
    batch = loader(5).batch(0)
    assert torch.equal(batch.targets, (batch.tokens + 1) % 5)


def test_every_token_but_the_first_is_a_target_in_an_epoch():
    from itertools import islice

    with loader(41) as batches:
        seen = {t for b in islice(batches.iterate(), 9) for t in b.targets.flatten().tolist()}
    assert seen == set(range(1, 41))


def test_iterating_gives_the_numbered_batches_from_anywhere():
    with loader() as batches:
        for start in (0, 17):
            stream = batches.iterate(start)
            for index in range(start, start + 5):
                batch = next(stream)
                assert torch.equal(batch.tokens, batches.batch(index).tokens)
                assert torch.equal(batch.targets, batches.batch(index).targets)


def test_ranks_share_one_batch():
    parts = [loader(rank=rank, world=2).batch(6).tokens for rank in range(2)]
    assert torch.equal(torch.cat(parts), loader().batch(6).tokens)


def test_threads_end_with_the_loader():
    batches = loader()
    with batches:
        stream, other = batches.iterate(), batches.iterate(5)
        next(stream)
        next(other)
        assert len(threads()) == 2
        stream.close()
        assert len(threads()) == 1
    assert threads() == []
    with pytest.raises(RuntimeError, match="closed"):
        for _ in range(9):
            next(other)


def test_what_goes_wrong_in_the_thread_is_raised_outside():
    class Failing(TokenArray):
        def gather(self, starts, length):
            raise OSError("the disk went away")

    batches = BatchLoader(Failing([np.arange(99, dtype=np.uint16)]), 8, 4, seed=1)
    with batches, pytest.raises(OSError, match="went away"):
        next(batches.iterate())
    assert threads() == []


@pytest.mark.parametrize("ahead", [1, 4])
def test_batches_are_prepared_before_they_are_asked_for(ahead):
    ready = threading.Event()

    class Watched(TokenArray):
        def gather(self, starts, length):
            rows = super().gather(starts, length)
            count.append(len(rows))
            if len(count) >= ahead + 1:
                ready.set()
            return rows

    count: list[int] = []
    with BatchLoader(Watched([np.arange(99, dtype=np.uint16)]), 8, 4, seed=1) as batches:
        stream = batches.iterate(ready=ahead)
        next(stream)  # one is taken; the others follow by themselves
        assert ready.wait(10)
        time.sleep(0.2)
        assert len(count) <= ahead + 2  # and one waits for its place


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 200), context=st.integers(1, 30), batch_size=st.integers(1, 5))
def test_evaluation_covers_every_token_after_the_first_once(count, context, batch_size):
    batches = list(evaluation_batches(row(count), context, batch_size))
    targets = [t for b in batches for t in b.targets.flatten().tolist() if t != IGNORE]
    assert targets == list(range(1, count))
    for batch in batches:
        assert batch.tokens.shape == batch.targets.shape
        assert batch.tokens.shape[0] <= batch_size
        assert batch.tokens.shape[1] == context
        known = batch.targets != IGNORE
        assert torch.equal(batch.targets[known], batch.tokens[known] + 1)
        assert not batch.tokens[~known].any()


def test_a_mixture_tells_lengths_without_separators_and_shares_as_they_are_read():
    starts = np.array([0, 5, 6, 14])  # documents of 4, 0, 7 and 6 tokens
    one = TokenArray([np.arange(20, dtype=np.uint16)], starts=lambda: starts)
    other = TokenArray([np.arange(90, dtype=np.uint16)])
    mix = Weighted(weights=(3, 1), epochs_at_most=9)
    loader = BatchLoader({"one": one, "other": other}, 4, 4, seed=1, mix=mix)
    found = loader.mixture(20)
    assert found.lengths == {"one": [0, 0, 3], "other": [0] * 6 + [1]}
    assert found.steps == list(range(20))
    rows = [loader.batch(step).sources.tolist() for step in range(20)]
    for step, share in zip(found.steps, found.shares["one"], strict=True):
        around = [source for row in rows[step : step + 8] for source in row]
        assert share == pytest.approx(around.count(0) / len(around))
    assert found.shares["one"][0] == 0.75
    assert found.shares["one"][-1] < 0.75  # used up
