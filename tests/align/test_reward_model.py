# pyright: basic, reportOptionalMemberAccess=false, reportArgumentType=false
"""The reward model: Bradley and Terry's loss, what it learns, and that texts are read as learnt."""

import math

import pytest
import torch

from coterie.align.methods import method_of
from coterie.align.reward_model import RewardReader
from coterie.align.rewards import Corpus, Sample
from coterie.align.rewards.trained import Trained
from coterie.api.alignment import aligned
from coterie.checkpoint import load_model
from coterie.foundation.errors import CheckpointError
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory
from coterie.train import train
from coterie.train.objective import Models

PAIRS = [
    {"prompt": f"{n} times {n}\n", "chosen": f"is {n * n}", "rejected": f"said the king {n}"}
    for n in range(24)
]


def settings_of(base, path, **train_settings):
    usual = {"steps": 30, "epochs": None, "batch_size": 8, "evaluate_every": 0, "sample_every": 0,
             "optimizer": {"kind": "adamw", "learning_rate": 5e-3}}  # fmt: skip
    layers = [Layer("test", {"train": usual | train_settings,
                             "align": {"template": "continuation"}})]  # fmt: skip
    return aligned("reward-model", base, {"data": str(path)}, layers)


def test_the_loss_is_the_formula_of_texts_read_alone(base, rows_of):
    settings = settings_of(base, rows_of(PAIRS))
    method = method_of(settings, None)
    _, data = method.prepare(settings, lambda said: None)
    decoder = settings.model.build().double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    decoder.eval()
    batch = data.train.in_order(range(data.train.count))
    objective = method.objective(settings)
    assert int(objective.counts(batch)["pairs"]) == 22  # two are held out
    total = 0.0
    for row in range(len(batch.tokens)):
        scores = []
        for document in range(int(batch.documents[row].max()) + 1):
            tokens = batch.tokens[row][None, batch.documents[row] == document]
            with torch.no_grad():
                scores.append(float(decoder(tokens, tokens).values[0, -1]))
        for chosen, rejected in zip(scores[::2], scores[1::2], strict=True):
            total += -math.log(1 / (1 + math.exp(rejected - chosen)))
            total += 0.01 * (chosen + rejected) ** 2
    terms = {term.name: term for term in objective(Models(decoder), batch).terms}
    assert float(terms["loss"].total.detach()) == pytest.approx(total, rel=1e-6)


def test_it_learns_which_text_is_preferred_and_serves_as_a_reward(base, rows_of, tmp_path):
    settings = settings_of(base, rows_of(PAIRS))
    run = RunDirectory.create(tmp_path, "judge")
    train(settings, run, preset="x", method=method_of(settings, run))
    reward = Trained(run=str(run.path)).build(Corpus())
    asked = [(f"{n} times {n}\n", text) for n in range(30, 40) for text in (f"is {n}", "the king")]
    scores = reward([Sample(*each) for each in asked])
    won = sum(good > bad for good, bad in zip(scores[::2], scores[1::2], strict=True))
    assert won == 10, scores
    alone = RewardReader(load_model(run.path))([asked[3]])
    assert alone[0] == pytest.approx(scores[3], abs=1e-5), "whatever stands beside a text"


def test_another_run_is_refused(base_path):
    with pytest.raises(CheckpointError, match="is no reward model"):
        Trained(run=str(base_path)).build(Corpus())
