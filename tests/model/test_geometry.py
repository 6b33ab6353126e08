"""Lengths of documents by their numbers."""

from __future__ import annotations

import torch

from coterie.model.geometry import text_lengths


def test_lengths_of_documents():
    at = torch.tensor([[0, 1, 2, 0, 0, 1], [3, 4, 0, 1, 2, 3]])
    assert text_lengths(at, None).tolist() == [[3, 3, 3, 1, 2, 2], [5, 5, 4, 4, 4, 4]]
