"""Beam search beside that of transformers: the same texts and scores of the same weights."""

from __future__ import annotations

import os

import pytest
import torch

from coterie.exchange.huggingface import export_folder
from coterie.generate.beams import BeamSettings
from coterie.generate.beams.search import search
from coterie.generate.cache import FullCacheSettings
from coterie.generate.sampling import Sampler, SamplingSettings
from coterie.generate.session import DecodeSession
from coterie.model import DecoderSettings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
END, PROMPT, LENGTH = 3, [5, 2, 9], 12


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return a decoder and the model that transformers makes of its export."""
    transformers = pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(4)
    decoder = DecoderSettings.model_validate({
        "layers": 2, "width": 32, "context": 32, "vocab_size": 23,
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 24}},
    }).build(generator).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    folder = export_folder(decoder, None, tmp_path_factory.mktemp("beams") / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return decoder, model.eval()


CASES = [
    {"width": 4},
    *(
        pytest.param(case, marks=pytest.mark.exhaustive)
        for case in (
            {"width": 3, "length_penalty": 0.0, "early_stopping": True},
            {"width": 5, "length_penalty": 2.0, "early_stopping": "never"},
            {"width": 2, "length_penalty": -1.0},
        )
    ),
]


@pytest.mark.parametrize("beams", CASES)
def test_texts_and_scores_are_those_of_transformers(pair, beams):
    decoder, model = pair
    settings = BeamSettings.model_validate(beams)
    theirs = model.generate(
        torch.tensor([PROMPT]), num_beams=settings.width, num_return_sequences=settings.width,
        length_penalty=settings.length_penalty, early_stopping=settings.early_stopping,
        max_new_tokens=LENGTH, do_sample=False, eos_token_id=END, pad_token_id=0,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    sampler = Sampler(SamplingSettings(max_tokens=LENGTH), ends=[END])
    session = DecodeSession(decoder, FullCacheSettings())
    ours = search(session, PROMPT, settings, sampler, frozenset([END]), 23)
    expected = []
    for row in theirs.sequences[:, len(PROMPT) :].tolist():
        expected.append(tuple(row[: row.index(END) + 1] if END in row else row))
    assert [each.tokens for each in ours] == expected
    assert [each.score for each in ours] == pytest.approx(
        theirs.sequences_scores.tolist(), rel=1e-6
    )
