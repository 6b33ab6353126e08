"""Texts of a rollout: the same alone and together, as the engine writes them, with their routes."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import pytest
import torch

from coterie.align.reinforce.experience import assembled
from coterie.align.reinforce.objective import read_policy
from coterie.align.reinforce.rollout import Writer
from coterie.foundation.errors import SettingsError
from coterie.generate import Engine, SamplingSettings
from coterie.model.context import ForwardContext
from coterie.model.replay import RoutingReplay

PROMPTS = ["Shall I compare\n", "Thou art\nmore lovely\n", "And\n"]
SAMPLING = SamplingSettings(temperature=1.0, max_tokens=12, compute="torch")


def written(base, prompts=PROMPTS, at_once=64, **changes):
    writer = Writer(base.decoder, base.tokenizer, SAMPLING.model_copy(update=changes), at_once)
    return writer.write(prompts, 2, seed=5)


def test_texts_are_those_of_the_engine_by_their_seeds(base):
    found = written(base)
    engine = Engine(base.decoder, base.tokenizer)
    for place, each in enumerate(found):
        sampling = SAMPLING.model_copy(update={"seed": (5 << 20) + place})
        alone = engine.generate(PROMPTS[place // 2], sampling)
        assert (each.text, tuple(each.tokens)) == (alone.text, alone.tokens)
        assert each.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert each.ended == (alone.finish_reason != "length")


def test_written_two_at_a_time_they_are_the_same(base):
    assert [each.tokens for each in written(base, at_once=2)] == [
        each.tokens for each in written(base)
    ]


def test_a_text_ends_after_its_lines(base):
    newline = base.tokenizer.encode("\n")[0]
    writer = Writer(
        base.decoder, base.tokenizer,
        SAMPLING.model_copy(update={"logit_bias": {"\n": 3.0}, "max_tokens": 60}), 64,
    )  # fmt: skip
    for each in writer.write(PROMPTS, 4, seed=0, lines=2):
        if each.tokens[-1] == newline:
            assert each.ended
            assert each.tokens.count(newline) == 2
        else:
            assert each.tokens.count(newline) < 2
            assert each.ended == (each.tokens[-1] in base.tokenizer.ends)
            assert each.ended or len(each.tokens) == 60


def test_too_long_for_the_context_is_refused(base):
    with pytest.raises(SettingsError, match="longer than the model's context of 128"):
        written(base, max_tokens=120)


def test_log_probabilities_and_routes_are_those_of_one_pass_over_the_text(base):
    found = written(base)
    batch = assembled(found, "text", 12)
    with torch.no_grad():
        read = read_policy(base.decoder, base.decoder, batch)
    torch.testing.assert_close(read.logprobs, batch.written, atol=1e-4, rtol=1e-4)
    for row, each in enumerate(found):
        tokens = torch.tensor([[*each.prompt, *each.tokens[:-1]]])
        routes = [RoutingReplay() for _ in range(2)]
        with torch.no_grad():
            base.decoder(tokens, context=ForwardContext(routes=routes))
        for layer, own in enumerate(routes):
            recorded = batch.routes[row, : tokens.shape[1], layer].long()
            same = (recorded.sort(-1).values == own.indices.sort(-1).values).float().mean()
            assert same > 0.95  # near ties may go either way


def test_weights_and_shares_say_what_each_token_counts(base):
    found = written(base)
    for aggregation, expected in (("text", 1.0), ("token", None), ("fixed", None)):
        batch = assembled(found, aggregation, 12)
        for row, each in enumerate(found):
            total = float(batch.weights[row].sum())
            if aggregation == "text":
                assert total == pytest.approx(expected)
            if aggregation == "token":
                assert total == float(batch.share[row]) == len(each.tokens)
            if aggregation == "fixed":
                assert total == pytest.approx(len(each.tokens) / 12)
            assert int(batch.valid[row].sum()) == len(each.tokens)
            assert not batch.weights[row][~batch.valid[row]].any()
