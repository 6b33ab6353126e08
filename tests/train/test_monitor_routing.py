"""A look tells what routers and stream did, and training is the same with it and without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie.batch import IGNORE, TokenBatch
from coterie.evaluate.specialisation import information as counted_information
from coterie.foundation.event_log import read_events
from coterie.foundation.runs import RunDirectory
from coterie.model import routed_layers
from coterie.model.observe import Watcher
from coterie.train import train
from coterie.train.events import RoutingWatched
from coterie.train.monitor.publish import Publisher
from coterie.train.monitor.routing import RoutingWatch, information
from coterie.train.session import open_session


@pytest.fixture
def looked(tiny, new_run):
    """Return a maker of a session with planted routers, its batch, and what looks at it."""

    def make(**changes):
        session = open_session(tiny(**changes), new_run("looked"))
        generator = torch.Generator().manual_seed(3)
        for part in routed_layers(session.decoder).values():
            part.router.weight.data.normal_(0, 3, generator=generator)
        with Publisher(session.run, []) as publish:
            watch = RoutingWatch(1, session.decoder, session.precision, session.tokenizer, publish)
        return session, session.loader().batch(0), watch

    return make


def test_a_look_tells_what_the_model_did(looked):
    session, batch, watch = looked()
    seen = watch.look(1, batch)
    assert seen.tokens == batch.tokens.numel()
    layer, experts = seen.layers[1], 4
    rows = []
    for row in batch.tokens:  # each text alone, by way of what is watched when generating
        with torch.no_grad(), Watcher(session.decoder.eval()) as watcher:
            session.decoder(row[None])
            rows.append(watcher.take(len(row)))
    for at, told in enumerate(seen.layers):
        for name in ("residual", "attention", "feedforward"):
            mean = torch.cat([getattr(row[at], name) for row in rows]).mean()
            assert getattr(told, name) == pytest.approx(float(mean), rel=1e-3)
    routing = [row[1].routing for row in rows]
    indices = torch.cat([each.indices for each in routing]).numpy()
    weights = np.zeros((len(indices), experts))
    np.put_along_axis(weights, indices, torch.cat([each.gates for each in routing]).numpy(), 1)
    members = weights > 0
    assert layer.load == tuple(members.sum(0))
    assert [each.weight for each in layer.experts] == pytest.approx(
        weights.sum(0) * experts / weights.sum(), rel=1e-3
    )
    tokens = batch.tokens.flatten().numpy()
    kinds, label = np.unique(tokens, return_inverse=True)
    assert layer.token == pytest.approx(counted_information(label, weights), rel=1e-3)
    eighth = np.tile(np.arange(16) / 15 * 8, 4).clip(max=7).astype(int)
    assert layer.position == pytest.approx(counted_information(eighth, weights), rel=1e-3)
    assert 0 < layer.token_null < layer.token
    shares = torch.cat([each.shares for each in routing])
    assert layer.entropy == pytest.approx(float(torch.special.entr(shares).sum(1).mean()), rel=1e-3)
    margin = torch.cat([each.margin for each in routing]).sort().values
    assert (layer.margin, layer.margin_low) == pytest.approx(
        (float(margin[31]), float(margin[6])), rel=1e-3
    )
    for number, expert in enumerate(layer.experts):
        own = weights[:, number]
        places = np.tile(np.linspace(0, 1, 16), 4)
        assert expert.position == pytest.approx((own * places).sum() / own.sum(), rel=1e-3)
        lifts = {
            int(kind): own[label == at].mean() / own.mean()
            for at, kind in enumerate(kinds) if (label == at).sum() >= 3
        }  # fmt: skip
        assert expert.favourites
        assert expert.favourites[0][2] == pytest.approx(max(lifts.values()), rel=1e-3)
        for token, times, lift in expert.favourites:
            assert (times, lift) == (
                (tokens == token).sum(), pytest.approx(lifts[token], rel=1e-3)
            )  # fmt: skip
            assert seen.words[token] == session.tokenizer.decode([token])
        for other, lift in expert.partners:
            both = (members[:, number] & members[:, other]).mean()
            alone = members[:, number].mean() * members[:, other].mean()
            assert lift == pytest.approx(both / alone, rel=1e-3)
    assert seen.layers[0].experts
    assert not watch.look(2, batch).words, "tokens are named once"


def test_ignored_tokens_and_what_is_beyond_the_limit_are_not_looked_at(looked, monkeypatch):
    _, batch, watch = looked()
    targets = batch.targets.clone()
    targets[1:] = IGNORE
    some = watch.look(1, replace(batch, targets=targets))
    monkeypatch.setattr("coterie.train.monitor.routing.MOST_TOKENS", 16)
    first = watch.look(1, batch)
    assert some.tokens == first.tokens == 16
    assert some.layers == first.layers
    blank = watch.look(1, TokenBatch(batch.tokens, torch.full_like(targets, IGNORE)))
    assert blank.tokens == 0
    assert not blank.layers[1].experts


def test_layers_without_experts_or_choice_are_told_of(looked):
    session, batch, watch = looked(model={"feedforward": {"experts_per_token": 4}})
    line = watch.look(1, batch).model_dump_json()
    assert RoutingWatched.model_validate_json(line).layers[1].margin == float("inf")
    assert "routing/layer_1/token" in watch.look(1, batch).numbers()
    assert session.decoder.training


def test_information_is_that_of_a_table():
    weights = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert float(information(torch.tensor([0, 0, 1, 1]), weights, 2)) == pytest.approx(np.log(2))
    assert float(information(torch.tensor([0, 1, 0, 1]), weights, 2)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "train_",
    [
        {"activation_checkpointing": True, "gradient_accumulation": 2},
        {"ema": 0.9, "precision": "bfloat16"},
    ],
)
def test_a_watched_run_has_the_bits_of_one_that_is_not(tiny, new_run, train_):
    model = {
        "dropout": {"rate": 0.1},
        "feedforward": {"router": {"noise": {"kind": "jitter"}}},
    }
    ends, seen = [], {}
    for every in (0, 2):
        settings = tiny(model=model, train={**train_, "watch_every": every})
        run = new_run(f"every-{every}")
        result = train(settings, run, preset="tiny")
        model_file = result.checkpoint / "model.safetensors"
        ends.append(model_file.read_bytes())
        seen[every] = looks(run)
    assert ends[0] == ends[1]
    assert [event.step for event in seen[2]] == [2, 4, 6]
    assert not seen[0]


def looks(run: RunDirectory) -> list[RoutingWatched]:
    return [event for event in read_events(run.events) if isinstance(event, RoutingWatched)]
