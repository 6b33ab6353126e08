"""A tiny model in float64, with dropout, and its tokenizer of characters."""

import pytest
import torch

from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters

TEXT = "To be, or not to be: that is the question — €"


@pytest.fixture
def model():
    tokenizer = Characters().build([TEXT])
    torch.manual_seed(0)
    settings = DecoderSettings.model_validate({
        "layers": 2, "width": 16, "context": 8, "vocab_size": tokenizer.vocab_size,
        "attention": {"kind": "grouped", "heads": 2}, "dropout": 0.5,
    })  # fmt: skip
    decoder = settings.build().double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return decoder, tokenizer
