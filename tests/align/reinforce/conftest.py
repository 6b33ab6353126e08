"""A small untrained mixture of experts on a little verse, as a run to begin with."""

from pathlib import Path

import pytest
import torch

from coterie.checkpoint import load_model, save_checkpoint
from coterie.data import store_for
from coterie.foundation.layers import dump_yaml
from coterie.foundation.runs import RunDirectory, cache_root, runs_root
from coterie.train.pretraining import fill_vocabulary_size
from coterie.train.randomness import random_state
from coterie.train.settings import RunSettings

VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date.
"""


def make_base(places: Path, **model: object) -> RunDirectory:
    text = places / "verse.txt"
    text.write_text(VERSE * 20, encoding="utf-8")
    settings = RunSettings.model_validate({
        "data": {"source": str(text), "split": "tail", "valid_fraction": 0.1},
        "model": {
            "layers": 2, "width": 16, "context": 128, "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {"kind": "moe", "experts": [{"count": 6}], "experts_per_token": 2,
                            "balance": {"kind": "bias", "rate": 0.01}},
            **model,
        },
    })  # fmt: skip
    store = store_for(settings.data, settings.tokenizer, cache_root())
    settings = fill_vocabulary_size(settings, store.tokenizer.vocab_size)
    run = RunDirectory.create(runs_root(), "base")
    run.write_config(dump_yaml(settings))
    decoder = settings.model.build(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # a fresh head may be zero, and every token then as likely as another
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    save_checkpoint(
        run.checkpoints, 1, model=decoder, optimizer_state={},
        state={"data": store.fingerprint, "random": random_state()}, settings=settings,
        tokenizer=store.tokenizer,
    )  # fmt: skip
    return run


@pytest.fixture
def base(places):
    """Make the run `base` and return its model as loaded."""
    make_base(places)
    return load_model("base")
