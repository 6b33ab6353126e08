"""A split of documents whose tokens say which document they are of and where they stand in it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coterie.data import TokenArray

SEPARATOR = 9


def token(document: int, place: int) -> int:
    """Return the token at a place of a document; no two in a split are equal."""
    return 10 + document * 100 + place


@pytest.fixture
def split_of():
    """Return a function that makes a split of documents of the given lengths."""

    def make(lengths, shard_tokens=None):
        texts = [[token(d, p) for p in range(n)] for d, n in enumerate(lengths)]
        row = [*itertools.chain(*([*text, SEPARATOR] for text in texts))][:-1]
        starts = np.cumsum([0, *(n + 1 for n in lengths[:-1])]) if lengths else np.empty(0, int)
        size = shard_tokens or max(len(row), 1)
        shards = [np.array(row[at : at + size], np.uint16) for at in range(0, len(row), size)]
        return TokenArray(shards, size, starts=lambda: starts.astype(np.int64))

    return make
