"""The decoder as a whole: what its settings refuse, the last positions alone."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import SettingsError
from coterie.model.context import ForwardContext


def test_last_gives_the_logits_of_the_last_positions(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(), draw_tokens()
    torch.testing.assert_close(decoder(tokens, last=2).logits, decoder(tokens).logits[:, -2:])


def test_a_vocabulary_must_be_known_before_building(make_settings):
    with pytest.raises(SettingsError, match="vocabulary size is not known"):
        make_settings(vocab_size=None).build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": {"kind": "grouped", "heads": 3}}, "3 attention heads cannot share a width"),
        ({"attention": {"kind": "grouped", "heads": 4, "kv_heads": 3}}, "not a multiple"),
        ({"attention": {"kind": "grouped", "heads": 4, "head_dim": 5}}, "even and not 0"),
        ({"pattern": ["moe"]}, "there is no block “moe”"),
        ({"blocks": {"a": {}}}, "names block “a”"),
        ({"blocks": {"a": {}}, "opening": ["a"] * 3}, "opening names 3 layers of 2"),
        ({"embedding": {"kind": "ngram", "dim": 4, "combine": "add"}}, "as wide as the model"),
        ({"embedding": {"kind": "ngram", "orders": [3, 2]}}, "ascending"),
        ({"attention": {"kind": "group"}}, "did you mean “grouped”"),
        ({"feedforward": {"kind": "moe", "experts": [], "experts_per_token": 1}}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message, make_settings):
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)


def test_hidden_states_are_what_the_head_reads(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(), draw_tokens(2, 7)
    output = decoder(tokens, hidden_states=True)
    assert decoder(tokens).hidden_states is None
    logits = output.hidden_states @ decoder.head.weight.T
    torch.testing.assert_close(logits, output.logits)
    states = decoder(tokens, tokens, hidden_states=True).hidden_states
    torch.testing.assert_close(states, output.hidden_states)


def test_observers_see_the_stream_after_every_block(make_decoder, draw_tokens):
    seen = []

    class Watch:
        def layer_done(self, layer, hidden):
            seen.append((layer, hidden))

    decoder, tokens = make_decoder(layers=3), draw_tokens(1, 5)
    output = decoder(tokens, context=ForwardContext(observers=(Watch(),)), hidden_states=True)
    assert [layer for layer, _ in seen] == [0, 1, 2]
    torch.testing.assert_close(decoder.norm(seen[-1][1]), output.hidden_states)


def test_positions_may_be_given(make_decoder, draw_tokens):
    tokens = draw_tokens(2, 5)
    places = torch.tensor([[0, 1, 2, 3, 4], [7, 2, 0, 5, 5]])
    context = ForwardContext(positions=places)
    learned = make_decoder(position="learned")
    embedded = learned.embedding.weight[tokens] + learned.position.weight[places]
    hidden = embedded
    for block in learned.blocks:
        hidden, _ = block(hidden)
    expected = learned.norm(hidden) @ learned.head.weight.T
    torch.testing.assert_close(learned(tokens, context=context).logits, expected)
    rotary = make_decoder()  # only distances count
    shifted = ForwardContext(positions=torch.arange(3, 8).expand(2, 5))
    torch.testing.assert_close(
        rotary(tokens, context=shifted).logits, rotary(tokens).logits, rtol=0, atol=1e-6
    )
    assert not torch.allclose(rotary(tokens, context=context).logits[1], rotary(tokens).logits[1])
