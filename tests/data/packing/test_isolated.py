"""Isolated windows: those of the stream, with documents marked and no target across them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.batch import IGNORE
from coterie.data import BatchLoader, Windows, evaluation_batches
from coterie.data.packing import PADDING, Isolated

LENGTHS = [3, 1, 12, 2, 5, 1, 7]


def documents_of(split):
    return np.searchsorted(split.starts, np.arange(len(split)), side="right") - 1


@pytest.mark.parametrize("context", [1, 4, 9])
def test_windows_are_the_streams_with_documents_and_fewer_targets(split_of, context):
    split = split_of(LENGTHS)
    tokens, owner = split[:], documents_of(split)
    stream, isolated = (
        BatchLoader(split, context, 6, seed=2, **options)
        for options in ({}, {"packing": Isolated()})
    )
    windows = Windows(len(split), context, seed=2)
    for step in range(12):  # more than an epoch
        plain, batch = stream.batch(step), isolated.batch(step)
        at = windows.starts(step * 6, 6)[:, None] + np.arange(context)
        assert plain.documents is None
        assert torch.equal(batch.tokens, plain.tokens)
        assert np.array_equal(tokens[at], batch.tokens)
        assert np.array_equal(owner[at], batch.documents)
        wanted = np.where(owner[at] == owner[at + 1], plain.targets, IGNORE)
        assert np.array_equal(wanted, batch.targets)


def test_a_text_shorter_than_a_window_goes_round_without_targets_across(split_of):
    split = split_of([2, 1])  # a b | c
    batch = BatchLoader(split, 9, 4, seed=0, packing=Isolated()).batch(0)
    for row in range(4):
        runs = batch.documents[row]
        assert (runs[1:] >= runs[:-1]).all()
        for column in range(9):
            token, target = int(batch.tokens[row, column]), int(batch.targets[row, column])
            assert target == {10: 11, 11: 9, 9: IGNORE, 110: IGNORE}[token]
            if column < 8 and target == IGNORE:
                assert runs[column + 1] == runs[column] + 1


@pytest.mark.parametrize(("context", "batch_size"), [(4, 3), (7, 2), (64, 1)])
def test_evaluation_scores_every_token_but_the_documents_first_once(split_of, context, batch_size):
    split = split_of(LENGTHS, shard_tokens=5)
    batches = list(evaluation_batches(split, context, batch_size, Isolated()))
    scored = torch.cat([batch.targets[batch.valid] for batch in batches]).tolist()
    tokens = split[:].tolist()
    assert scored == [t for at, t in enumerate(tokens) if at not in split.starts]
    last = batches[-1]
    owners = torch.cat([batch.documents.flatten() for batch in batches])
    assert owners[: len(tokens) - 1].tolist() == documents_of(split)[:-1].tolist()
    assert (owners[len(tokens) - 1 :] == PADDING).all()
    assert not last.tokens[last.documents == PADDING].any()


def test_nothing_to_evaluate_yields_nothing(split_of):
    assert list(evaluation_batches(split_of([]), 4, 2, Isolated())) == []
    assert list(evaluation_batches(split_of([1]), 4, 2, Isolated())) == []
