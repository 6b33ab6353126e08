"""Memory foretold is memory taken."""

import pytest
import torch

from coterie.generate.memory import CacheMemory
from coterie.generate.sampling import SamplingSettings
from coterie.generate.session import DecodeSession
from coterie.model import DecoderSettings

GROUPED = {"kind": "grouped", "heads": 2, "kv_heads": 1, "head_dim": 32}
CACHES = {
    "full": {"kind": "full"},
    "window": {"kind": "window", "size": 100},
    "int8": {"kind": "quantised"},
    "int4": {"kind": "quantised", "bits": 4},
    "pruned": {"kind": "pruned", "size": 100},
    "streaming": {"kind": "pruned", "size": 100, "heavy": 0},
}


@pytest.mark.parametrize("window", [None, 60], ids=["all before", "windows"])
@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_takes_what_was_foretold(kind, window):
    values = {
        "layers": 2, "width": 16, "context": 1024, "vocab_size": 30,
        "attention": GROUPED | {"window": window},
    }  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build().eval()
    sampling = SamplingSettings.model_validate({"cache": CACHES[kind], "max_tokens": 400})
    foretold = CacheMemory(decoder).size(sampling, 600)
    session = DecodeSession(decoder, sampling.cache)
    for _ in range(25):
        session.read(torch.randint(30, (1, 40)))
    assert 0.75 * foretold <= session.cache_nbytes <= foretold * 1.4
