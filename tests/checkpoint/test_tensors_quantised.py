"""A checkpoint of quantised weights is one like any other: bit-equal, checked, found damaged."""

from __future__ import annotations

import pytest
import torch

from coterie.checkpoint import find_problem, load_model, save_checkpoint
from coterie.checkpoint.layout import MODEL
from coterie.foundation.errors import CheckpointError, UserError
from coterie.quantise import Int4Weights, Int8Weights, quantise, to_stored, weights_of
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train import RunSettings
from coterie.train.randomness import random_state

TOKENIZER = Bytes().build(())
TOKENS = torch.arange(8)[None]


@pytest.fixture(params=[Int8Weights(), Int4Weights()], ids=lambda weights: weights.kind)
def weights(request):
    return request.param


def save(root, model, step=0):
    return save_checkpoint(
        root, step, model=model, optimizer_state={}, state={"random": random_state()},
        settings=RunSettings(model=model.settings), tokenizer=TOKENIZER,
    )  # fmt: skip


def test_round_trip_is_bit_equal(decoder, weights, tmp_path):
    model = decoder(8).eval()
    quantise(model, weights)
    path = save(tmp_path, model)
    assert find_problem(path) is None
    loaded = load_model(path).decoder
    assert weights_of(loaded) == weights.kind
    given, kept = (to_stored(dict(each.named_parameters())) for each in (model, loaded))
    assert set(given) == set(kept)
    assert all(torch.equal(each, kept[name]) for name, each in given.items())
    with torch.inference_mode():
        assert torch.equal(model(TOKENS).logits, loaded(TOKENS).logits)


def test_quantised_while_loaded_is_the_same(decoder, weights, tmp_path):
    model = decoder(8).eval()
    path = save(tmp_path, model)
    loaded = load_model(path, weights=weights)
    quantise(model, weights)
    with torch.inference_mode():
        assert torch.equal(model(TOKENS).logits, loaded.decoder(TOKENS).logits)


def test_asked_for_in_the_format_that_it_has(decoder, tmp_path):
    model = decoder(8)
    quantise(model, Int8Weights())
    path = save(tmp_path, model)
    assert weights_of(load_model(path, weights=Int8Weights()).decoder) == "int8"
    with pytest.raises(UserError, match="int8 already"):
        load_model(path, weights=Int4Weights())


def test_cut_in_half(decoder, weights, tmp_path):
    model = decoder(8)
    quantise(model, weights)
    path = save(tmp_path, model)
    file = path / MODEL
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=rf"damaged: {MODEL} has .* bytes instead of"):
        load_model(path)


def test_a_part_that_is_not_finite(decoder, tmp_path):
    model = decoder(8)
    quantise(model, Int8Weights())
    model.blocks[0].attention.query.scale[0] = torch.nan
    assert "query.scale holds values that are not finite" in str(
        find_problem(save(tmp_path, model))
    )
