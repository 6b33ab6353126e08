"""A run with a checkpoint, made in a moment: what verbs about trained models need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. €\n" * 40


@pytest.fixture
def tiny_run(places: Path) -> Path:
    """Make an untrained run `tiny` on a text file of its own; return the file."""
    return make_run(places)


def make_run(places: Path, **data: object) -> Path:
    """Make the run with settings of its data; return its text file."""
    from coterie.checkpoint import save_checkpoint
    from coterie.data import store_for
    from coterie.foundation.layers import dump_yaml
    from coterie.foundation.runs import RunDirectory, cache_root, runs_root
    from coterie.train.pretraining import fill_vocabulary_size
    from coterie.train.randomness import random_state
    from coterie.train.settings import RunSettings

    text = places / "april.txt"
    text.write_text(TEXT, encoding="utf-8")
    settings = RunSettings.model_validate({
        "data": {"source": str(text), "split": "tail", **data},
        "model": {
            "layers": 2, "width": 16, "context": 16, "attention": {"kind": "grouped", "heads": 2},
            "feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2},
        },
        "sample": {"max_tokens": 7},
    })  # fmt: skip
    store = store_for(settings.data, settings.tokenizer, cache_root())
    settings = fill_vocabulary_size(settings, store.tokenizer.vocab_size)
    run = RunDirectory.create(runs_root(), "tiny")
    run.write_config(dump_yaml(settings))
    decoder = settings.model.build(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # a fresh head may be zero, and every token then as likely as another
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    for step in (1, 2):
        save_checkpoint(
            run.checkpoints, step, model=decoder, optimizer_state={},
            state={"data": store.fingerprint, "random": random_state()}, settings=settings,
            tokenizer=store.tokenizer,
        )  # fmt: skip
    return text
