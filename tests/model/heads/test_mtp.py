"""Multi-token prediction against a slow chain, its losses, statistics and costs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coterie.model import count, routed_layers, selection_biases, update_balance
from coterie.model.context import ForwardContext
from coterie.model.heads import mtp_targets
from coterie.model.position import Span

MOE = {
    "kind": "moe", "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 8}}],
    "experts_per_token": 2, "balance": {"kind": "bias", "rate": 0.1},
}  # fmt: skip
ROUTED = {
    "blocks": {"plain": {}, "moe": {"feedforward": MOE}}, "pattern": ["moe", "plain"],
    "mtp": {"depth": 2, "block": "moe"},
}  # fmt: skip


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def slow_chain(decoder, tokens):
    """Return the logits of each depth for one text [T], position by position and from scratch."""
    embedded = F.embedding(tokens, decoder.embedding.weight)
    stream = embedded[None]

    def placed(count):
        span = Span(0, count, tokens.device)
        return ForwardContext(rotation=decoder.position.rotation(span))

    for block in decoder.blocks:
        stream, _ = block(stream, placed(len(tokens)))
    states = list(stream[0])
    found = []
    for depth, module in enumerate(decoder.mtp, start=1):
        joined = []
        for i in range(len(tokens) - depth):
            left = rms(states[i], module.hidden_norm.weight)
            right = rms(embedded[i + depth], module.token_norm.weight)
            joined.append(module.projection @ torch.cat((left, right)))
        states = []
        for i in range(len(joined)):  # each position from its own past alone
            past = torch.stack(joined[: i + 1])[None]
            states.append(module.block(past, placed(i + 1))[0][0, -1])
        finals = [rms(state, module.norm.weight) for state in states]
        found.append(torch.stack([decoder.head.weight @ final for final in finals]))
    return found


@pytest.mark.parametrize("changes", [{"mtp": {"depth": 3}}, ROUTED])
def test_the_chain_is_that_of_deepseek_position_by_position(changes, make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**changes), draw_tokens(2, 9)
    logits = decoder.predict_mtp(tokens)
    assert [each.shape[1] for each in logits] == [8, 7, 6][: len(logits)]
    for row in range(2):
        for depth, expected in enumerate(slow_chain(decoder, tokens[row])):
            torch.testing.assert_close(logits[depth][row], expected, rtol=0, atol=1e-10)


def test_each_depth_has_its_own_loss_over_its_own_valid_targets(make_decoder, draw_tokens):
    decoder = make_decoder(mtp={"depth": 2}).train()
    tokens = draw_tokens(3, 9)
    targets = tokens.roll(-1, 1)
    targets[:, -1] = -100
    targets[0, 3:6] = -100
    output = decoder(tokens, targets)
    for depth, (part, logits) in enumerate(
        zip(output.mtp, decoder.predict_mtp(tokens), strict=True), start=1
    ):
        assert part.shape == (3, 9 - depth)
        for row in range(3):
            for i in range(9 - depth):
                goal, expected = int(targets[row, i + depth]), torch.zeros(()).double()
                if goal >= 0:
                    assert goal == int(tokens[row, i + depth + 1])
                    expected = -logits[row, i].log_softmax(-1)[goal]
                torch.testing.assert_close(part[row, i], expected)


@pytest.mark.parametrize("changes", [{"mtp": {"depth": 2}}, ROUTED])
def test_a_depth_sees_exactly_as_far_as_it_may(changes, make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**changes), draw_tokens(1, 10)
    before = decoder.predict_mtp(tokens)
    for at in (2, 5, 9):
        changed = tokens.clone()
        changed[:, at] = (changed[:, at] + 5) % 23
        for depth, (old, new) in enumerate(
            zip(before, decoder.predict_mtp(changed), strict=True), start=1
        ):
            moved = (old - new).abs().amax(-1)[0] > 1e-9
            assert not moved[: at - depth].any(), "position i knows tokens up to i + depth"
            assert moved[at - depth], "and token i + depth it does know"


def test_nothing_is_predicted_across_documents(make_decoder, draw_tokens):
    documents = torch.tensor([[4, 4, 4, 4, 7, 7, 7, 9, 9, 9]])
    targets = torch.arange(10)[None]
    expected = torch.tensor([[2, 3, -100, -100, 6, -100, -100, 9]])
    assert torch.equal(mtp_targets(targets, 2, documents), expected)
    decoder, tokens = make_decoder(mtp={"depth": 2}).train(), draw_tokens(1, 10)
    goals = tokens.roll(-1, 1)
    goals[0, [3, 6, 9]] = -100
    whole = decoder(tokens, goals, context=ForwardContext(documents=documents))
    alone = [decoder(tokens[:, a:b], goals[:, a:b]) for a, b in ((0, 4), (4, 7), (7, 10))]
    for depth in range(2):
        parts = [each.mtp[depth].detach() for each in alone]
        expected = torch.cat([part[part != 0] for part in parts])
        found = whole.mtp[depth].detach()
        torch.testing.assert_close(found[found != 0], expected)
        assert len(expected) == (4, 1)[depth]


def test_mtp_is_for_training_only(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**ROUTED), draw_tokens()
    assert decoder(tokens, tokens).mtp == ()
    assert len(decoder(tokens, tokens).router_stats) == 1
    decoder.train()
    assert decoder(tokens).mtp == ()
    assert len(decoder(tokens, tokens).mtp) == 2
    plain = make_decoder(**(ROUTED | {"mtp": None})).state_dict()
    decoder.load_state_dict(plain, strict=False)
    torch.testing.assert_close(
        decoder(tokens).logits, make_decoder(**(ROUTED | {"mtp": None}))(tokens).logits
    )


def test_a_text_too_short_for_a_depth_goes_without_it(make_decoder, draw_tokens):
    decoder = make_decoder(mtp={"depth": 3}).train()
    for length, depths in ((1, 0), (2, 1), (4, 3)):
        tokens = draw_tokens(2, length)
        assert len(decoder(tokens, tokens).mtp) == depths
        assert len(decoder.predict_mtp(tokens)) == depths


def test_routed_modules_enter_the_accounts_after_the_decoder_s_layers(make_decoder, draw_tokens):
    decoder, tokens = make_decoder(**ROUTED).train(), draw_tokens(3, 10)
    targets = tokens.roll(-1, 1)
    targets[0, 4:] = -100
    output = decoder(tokens, targets)
    assert [each.layer for each in output.router_stats] == [0, 2, 3]
    assert list(routed_layers(decoder)) == [0, 2, 3]
    for account, tokens_there in zip(output.router_stats, (24, 21, 18), strict=True):
        assert int(account.load.sum()) == 2 * tokens_there
    before = selection_biases(decoder)
    update_balance(decoder, {each.layer: each.load for each in output.router_stats})
    after = selection_biases(decoder)
    assert set(after) == {0, 2, 3}
    for layer, bias in after.items():
        assert not torch.equal(bias, before[layer])


def test_mtp_modules_cost_parameters_and_nothing_per_token_written(make_settings):
    plain, more = (count(make_settings(**ROUTED | {"mtp": mtp})) for mtp in (
        None, {"depth": 2, "block": "plain"}))  # fmt: skip
    rows = [row for row in more.tree if row.name == "mtp"]
    assert len(rows) == 2
    assert more.parameters - plain.parameters == sum(row.parameters for row in rows)
    assert rows[0].parameters == 3 * 16 + 2 * 16 * 16 + (2 * 16 + 4 * 16 * 16 + 3 * 16 * 12)
    assert (more.active_parameters, more.flops_per_token(), more.cache_bytes_per_token) == (
        plain.active_parameters, plain.flops_per_token(), plain.cache_bytes_per_token)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mtp": {"depth": 12}}, "leaves nothing to predict in a context of 12"),
        ({"mtp": {"depth": 1, "block": "moe"}}, "there is no block “moe”"),
    ],
)
def test_settings_of_mtp_that_do_not_fit_are_refused(changes, message, make_settings):
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)
