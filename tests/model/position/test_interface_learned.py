"""Learned positions end with the context."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.model.context import ForwardContext


def test_learned_positions_end_with_the_context(make_decoder, draw_tokens):
    decoder = make_decoder(position="learned")
    assert decoder(draw_tokens(1, 12)).logits.shape == (1, 12, 23)
    with pytest.raises(UserError, match="13 tokens, but this model has learned positions for 12"):
        decoder(draw_tokens(1, 13))
    with pytest.raises(UserError, match="13 tokens, but this model has learned positions for 12"):
        decoder(
            draw_tokens(1, 14), context=ForwardContext(documents=torch.tensor([[0] + [1] * 13]))
        )
