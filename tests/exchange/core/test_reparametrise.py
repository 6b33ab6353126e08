"""Every member of every union, and every variant, is expressed exactly or refused."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from coterie.exchange.core.match import Match
from coterie.exchange.core.reparametrise import Reparametrised
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.writing import match_family
from coterie.exchange.imported import ExchangeError
from coterie.foundation.settings import kind_of, members
from coterie.model import (
    MLP,
    Attention,
    Balance,
    Decoder,
    DecoderSettings,
    Embedding,
    Kernel,
    Norm,
    Position,
)
from coterie.model.block_layout import BlockLayout
from coterie.model.experts import Score, Select

VARIANTS = Path(__file__).parents[2] / "model" / "variants"
FILES = [yaml.safe_load(path.read_text()) for path in sorted(VARIANTS.glob("*.yaml"))]
NEEDS: dict[str, Any] = {kind: needs for file in FILES for kind, needs in file["needs"].items()}
MOE = NEEDS["moe"]
BASE = {"layers": 2, "width": 16, "context": 16, "vocab_size": 23}


def moe(**changes):
    return {"feedforward": MOE | changes}


PLACES = {
    "attention": (Attention, lambda x: {"attention": x}),
    "position": (Position, lambda x: {"position": x}),
    "norm": (Norm, lambda x: {"norm": x}),
    "embedding": (Embedding, lambda x: {"embedding": x}),
    "block_layout": (BlockLayout, lambda x: {"block_layout": x}),
    "mlp": (MLP, lambda x: {"feedforward": {"kind": "dense", "mlp": x}}),
    "expert": (MLP, lambda x: moe(experts=[{"mlp": x, "count": 4}])),
    "score": (Score, lambda x: moe(router={"score": x})),
    "select": (Select, lambda x: moe(router={"select": x})),
    "balance": (Balance, lambda x: moe(balance=x)),
    "kernel": (Kernel, lambda x: moe(kernel={"kind": x["kind"]})),
}
CASES = {
    f"{name}-{kind_of(each)}": place({"kind": kind_of(each)} | NEEDS.get(kind_of(each), {}))
    for name, (union, place) in PLACES.items()
    for each in members(union)
}
CASES |= {name: changes for file in FILES for name, changes in file["variants"].items()}


def made(changes: dict[str, Any]) -> Decoder:
    """Return a decoder in float64 whose every tensor is random."""
    generator = torch.Generator().manual_seed(1)
    decoder = DecoderSettings.model_validate(BASE | changes).build(generator).double().eval()
    with torch.no_grad():
        for tensor in decoder.state_dict().values():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.add_(noise * 0.3)
    return decoder


@functools.cache
def matched(name: str) -> tuple[Decoder, Match[Family] | list[str]]:
    """Return a decoder and the family that holds it exactly, or what has no home in any."""
    decoder = made(CASES[name])
    try:
        return decoder, match_family(decoder)
    except ExchangeError as error:
        return decoder, error.message.partition("has no home for:\n  ")[2].splitlines()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_match_computes_the_same_function(name):
    decoder, match = matched(name)
    if not isinstance(match, Match):
        return
    tensors = Reparametrised(decoder, match.settings)
    other = Decoder(match.settings).double().eval()
    other.load_state_dict({name: tensors.read(name) for name in tensors.shapes})
    tokens = torch.randint(0, 23, (2, 40), generator=torch.Generator().manual_seed(2))
    tokens = tokens[:, : decoder.position.limit]
    expected = decoder(tokens).logits
    assert expected.std() > 0.1
    assert (other(tokens).logits - expected).abs().max() < 1e-9


def test_enough_of_them_match():
    found = {name: matched(name)[1] for name in CASES}
    families = {name: way.family.name for name, way in found.items() if isinstance(way, Match)}
    assert len(families) >= 20, families
    assert families["attention-grouped"] == "llama"
    assert families["attention-mla"] == "deepseek_v2"
    assert found["balance-bias"] == ["the selection bias that balances its experts"]
    assert all(found.values()), "a refusal names what has no home"
