"""The compiled decode step: the same logits as the eager one, and what it leaves to that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coterie.generate.cache import FullCacheSettings, WindowCacheSettings
from coterie.generate.passes import Call, EagerPass
from coterie.generate.passes.compiled import CompiledPass
from coterie.generate.session import cache_specs, evaluation
from coterie.model import DecoderSettings

BASE = {"layers": 2, "width": 16, "context": 64, "vocab_size": 23}
MOE = {"kind": "moe", "experts": [{"count": 4, "mlp": {"kind": "gated", "width": 8}}],
       "experts_per_token": 2, "shared_experts": 1}  # fmt: skip
MODELS = [
    {"attention": {"kind": "grouped", "heads": 4, "kv_heads": 2, "window": 4}, "feedforward": MOE},
    {"attention": {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_dim": 4, "rope_dim": 4,
                   "value_dim": 6}, "embedding": "ngram"},
    {"position": "learned", "norm": "layer",
     "feedforward": {**MOE, "router": {"score": "sigmoid"}}},
]  # fmt: skip


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.exhaustive)]
)
def test_steps_equal_the_eager_ones_for_rows_of_any_length(backend):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compiled.py"), backend],
        input="\n".join(json.dumps(BASE | changes) for changes in MODELS),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"after {done.stdout}\n{done.stderr}"
    differences = [float(line) for line in done.stdout.split()]
    assert len(differences) == len(MODELS)
    assert max(differences) < 1e-10


def test_it_leaves_other_calls_to_the_next_pass():
    decoder = DecoderSettings.model_validate(BASE).build()
    ours = CompiledPass(decoder, backend="eager")
    tokens = torch.ones(2, 1, dtype=torch.long)
    specs = cache_specs(decoder)
    full, window = FullCacheSettings().build(specs), WindowCacheSettings(size=4).build(specs)
    assert "after a prompt" in ours.refuses(Call(tokens, full))
    for cache in (full, window):
        with evaluation(decoder):
            EagerPass(decoder).read(Call(tokens.expand(2, 3), cache))
    assert ours.refuses(Call(tokens, full)) is None
    assert "static shape" in ours.refuses(Call(tokens, window))
    assert "single tokens" in ours.refuses(Call(tokens.expand(2, 3), full))
    assert "single tokens" in ours.refuses(Call(tokens))
    assert "nothing to read" in ours.refuses(Call(tokens, full, lengths=(1, 0)))
