"""A checkpoint of a small routed decoder, made in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coterie.checkpoint import save_checkpoint
from coterie.model import Decoder, DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train import RunSettings
from coterie.train.randomness import random_state

TOKENIZER = Bytes().build(())


def make_decoder(width: int = 4) -> Decoder:
    settings = {
        "vocab_size": TOKENIZER.vocab_size, "layers": 1, "width": width, "context": 8,
        "attention": {"kind": "grouped", "heads": 2}, "head": {"tied": True},
        "feedforward": {"kind": "moe", "experts": [{"count": 2}], "experts_per_token": 1,
                        "balance": {"kind": "bias"}},
    }  # fmt: skip
    return DecoderSettings.model_validate(settings).build()


def write_checkpoint(
    root: Path,
    step: int,
    *,
    keep: int | None = None,
    keep_every: int | None = None,
    run: str | None = None,
    weight: float | None = None,
    **state: object,
) -> Path:
    torch.manual_seed(step)
    model = make_decoder()
    if weight is not None:
        model.embedding.weight.data[0, 0] = weight
    moments = {f"muon.{n}.momentum": torch.full_like(p, step) for n, p in model.named_parameters()}
    return save_checkpoint(
        root,
        step,
        model=model,
        optimizer_state=moments,
        state={"random": random_state(), **state},
        settings=RunSettings(model=model.settings),
        tokenizer=TOKENIZER,
        run=run,
        keep=keep,
        keep_every=keep_every,
    )


@pytest.fixture
def decoder():
    """Return a maker of decoders."""
    return make_decoder


@pytest.fixture(scope="session")
def save():
    """Return a maker of checkpoints."""
    return write_checkpoint
