"""Values are a linear map of the final states."""

from __future__ import annotations

import torch


def test_values_are_a_linear_map_of_the_final_states(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(value={}), draw_tokens()
    seen = []
    decoder.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    values = decoder(tokens, tokens).values
    expected = torch.einsum("btd,d->bt", seen[0], decoder.value.weight[0]) + decoder.value.bias
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(decoder(tokens, last=2).values, expected[:, -2:])
    assert make_decoder()(tokens).values is None
