"""What a hand costs is what the model itself says, beside other experts of the same layers."""

import numpy as np
import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.model.observe import Steering, steered
from coterie.visualise.web.studio import Effect, Lapse, Studio, experts
from tests.visualise.web.conftest import VOWELS


def loss_of(engine, tokens, masked):
    decoder = engine.decoder.eval()
    with steered(decoder, Steering(masked, {})), torch.no_grad():
        logs = decoder(torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    return -logs.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0].double().numpy()


def test_the_cost_of_a_hand_is_the_models(author, engine, trace):
    studio = Studio(author)
    studio.show(trace, "a text")
    found = studio.effect(Effect(text=1, masked=("1:2",), controls=3))
    tokens = trace.records["token"].tolist()
    plain, own = loss_of(engine, tokens, {}), loss_of(engine, tokens, {1: (2,)})
    assert found["plain"] == pytest.approx(plain.mean(), abs=1e-5)
    assert found["gain"] == pytest.approx((own - plain).mean(), abs=1e-5)
    np.testing.assert_allclose(found["each"], own - plain, atol=1e-4)
    assert abs(found["gain"]) > 1e-4
    assert len(found["controls"]) == 3
    for control in found["controls"]:
        (name,) = control["masked"]
        assert name != "1:2"
        assert name.startswith("1:")
        other = loss_of(engine, tokens, experts([name]))
        assert control["gain"] == pytest.approx((other - plain).mean(), abs=1e-5)


def test_a_text_longer_than_the_context_is_read_in_windows(author, engine, trace):
    tokens, context = trace.records["token"].tolist() * 2, engine.decoder.settings.context
    assert len(tokens) > context
    found = author.surprises(tokens, 7, {1: (2,)}, {})
    first = loss_of(engine, tokens[: context + 1], {1: (2,)})
    second = loss_of(engine, tokens[context:], {1: (2,)})
    np.testing.assert_allclose(found, [*first, *second], atol=1e-5)


def test_one_text_through_the_checkpoints_is_what_each_of_them_does(author, trace):
    studio = Studio(author)
    studio.show(trace, "a text")
    found = studio.lapse(Lapse(text=1))
    tokens = trace.records["token"].tolist()
    vowels = np.array([token in VOWELS for token in tokens[:-1]])
    assert found["steps"] == [3, 7]
    planted, free = found["layers"]
    first, last = map(np.array, planted["experts"])
    assert (first[vowels] == 2).all()
    assert (last[vowels] == 1).all()
    np.testing.assert_array_equal(first[~vowels], last[~vowels])
    # Two experts a token: all have the second, and vowels another first.
    assert planted["kept"] == [pytest.approx(1 - vowels.mean() / 2), 1.0]
    assert planted["even"] == 0.5
    stats = {}
    for step, engine in author.engines.items():
        with torch.no_grad():
            stats[step] = engine.decoder.eval()(torch.tensor([tokens[:-1]])).router_stats
        np.testing.assert_array_equal(
            free["experts"][step == 7], stats[step][1].indices.flatten(0, -2)[:, 0]
        )
        cost = loss_of(engine, tokens, {}).mean()
        assert found["surprise"][step == 7] == pytest.approx(cost, abs=1e-5)
    sets = [
        [set(row) for row in each[1].indices.flatten(0, -2).tolist()] for each in stats.values()
    ]
    same = [len(one & other) / 2 for one, other in zip(*sets, strict=True)]
    assert free["kept"][0] == pytest.approx(np.mean(same))


def test_too_few_others_make_no_control_and_no_hand_no_effect(author, trace):
    studio = Studio(author)
    studio.show(trace, "a text")
    found = studio.effect(Effect(text=1, masked=("1:0", "1:1"), forced=("1:2",)))
    assert found["controls"] == []
    with pytest.raises(UserError, match="No expert was named"):
        studio.effect(Effect(text=1))


def test_old_texts_make_room(trace, monkeypatch):
    monkeypatch.setattr("coterie.visualise.web.studio.MOST_TEXTS", 2)
    studio = Studio()
    for name in "abc":
        studio.show(trace, name)
    assert [text.title for text in studio.texts.values()] == ["b", "c"]
    with pytest.raises(UserError, match="no text 1"):
        studio.find(1)
