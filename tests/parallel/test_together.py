"""What is drawn for the rows of a batch is the same however many processes share it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.parallel.together import RowDraws


@pytest.mark.parametrize("masked", [False, True])
def test_attention_drops_the_weights_of_a_row_as_one_process_would(masked):
    query = torch.randn(4, 4, 6, 8, dtype=torch.float64)
    key, value = torch.randn(2, 4, 2, 6, 8, dtype=torch.float64)
    mask = torch.rand(4, 1, 6, 6) < 0.5 if masked else None
    if mask is not None:
        mask |= torch.eye(6, dtype=torch.bool)
    torch.manual_seed(3)
    whole = _attention(query, key, value, mask)
    for reader in range(2):
        own = slice(2 * reader, 2 * reader + 2)
        torch.manual_seed(3)
        with RowDraws(reader, 2):
            part = _attention(query[own], key[own], value[own], None if mask is None else mask[own])
        torch.testing.assert_close(part, whole[own])


def _attention(query, key, value, mask):
    return F.scaled_dot_product_attention(
        query, key, value, mask, 0.3, mask is None, enable_gqa=True
    )
