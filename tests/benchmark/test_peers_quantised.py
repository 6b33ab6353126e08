"""Ourselves with weights of few bits: a model of its own, measured like any other."""

import torch

from coterie.benchmark import PEERS
from coterie.model import DecoderSettings
from coterie.quantise import weights_of
from coterie.tokenizer.settings import parse_tokenizer


def test_it_decodes_with_a_copy_in_the_format(tmp_path):
    values = {"layers": 1, "width": 32, "context": 32, "vocab_size": 272}
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(1)).eval()
    tokenizer, prompts = parse_tokenizer("bytes").build(), torch.ones(1, 3, dtype=torch.long)
    for name in ("int8", "int4"):
        (said,) = (ways := PEERS[name].ways(decoder, tokenizer, tmp_path, 1))
        assert said.endswith(f", {name}")
        way = ways[said](prompts, 6)
        assert way is not None
        assert way().steps == 5
    assert weights_of(decoder) is None
