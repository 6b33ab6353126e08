"""Keyed orders and hashes: permutations, different for every key, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from coterie.data.keyed import hashed, keys_of, permuted


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000])
def test_an_order_is_a_permutation(count):
    order = permuted(np.arange(count, dtype=np.uint64), count, keys_of(5, 0, 0))
    assert sorted(order.tolist()) == list(range(count))


def test_hashes_differ_by_number_seed_epoch_and_order():
    numbers = np.arange(2000)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1 << 64, 0, 0)]
    found = np.concatenate([hashed(numbers, keys_of(*key)) for key in keys])
    assert len(np.unique(found)) == len(found)
    share = (hashed(numbers, keys_of(0, 0, 0)) >> np.uint64(11)) / 2**53
    assert abs(share.mean() - 0.5) < 0.03


def test_a_hash_is_the_same_on_every_machine_for_ever():
    assert hashed(np.arange(3), keys_of(7, 8, 9)).tolist() == GOLDEN


GOLDEN = [2955003839890847125, 5045852453830607048, 7486765998240833352]
