"""Logits with a cache equal those without, for every attention, however the text is cut."""

import itertools

import pytest
import torch

from coterie.foundation.settings import kind_of, members
from coterie.generate.cache import (
    FullCacheSettings,
    PagedCacheSettings,
    SpilledCacheSettings,
    WindowCacheSettings,
)
from coterie.generate.session import cache_specs
from coterie.model import Attention, DecoderSettings, Embedding, Position
from coterie.model.context import ForwardContext

W = 5
ATTENTIONS = {
    "multi-head": {"kind": "grouped", "heads": 4},
    "grouped": {"kind": "grouped", "heads": 4, "kv_heads": 2, "query_key_norm": True},
    "multi-query": {"kind": "grouped", "heads": 4, "kv_heads": 1, "bias": True},
    "window": {"kind": "grouped", "heads": 4, "kv_heads": 2, "window": W},
    "sinks": {"kind": "grouped", "heads": 4, "kv_heads": 2, "window": W - 2, "sinks": 2},
    "mla": {"kind": "mla", "heads": 4, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4, "value_dim": 3},
    "mla window": {
        "kind": "mla",
        "heads": 4,
        "kv_rank": 6,
        "query_rank": 5,
        "nope_dim": 4,
        "rope_dim": 4,
        "rotary_key": "per_head",
        "window": W - 1,
        "sinks": 2,
    },
    "latent vectors": {
        "kind": "latent_vectors",
        "heads": 4,
        "kv_heads": 2,
        "chunk": 4,
        "latents": 2,
    },
}
PARTS = {
    **{f"position {kind_of(each)}": {"position": kind_of(each)} for each in members(Position)},
    "interleaved": {"position": {"kind": "rotary", "layout": "interleaved", "fraction": 0.5}},
    "embedding full": {"embedding": "full"},
    "embedding factorised": {"embedding": {"kind": "factorised", "rank": 4}},
    "embedding ngram": {"embedding": {"kind": "ngram", "rows": 64, "orders": (2, 3, 4)}},
    "counted": {"ngram": {"order": 4, "entries": 300}},
    "window in every other layer": {
        "blocks": {"all": {}, "near": {"attention": ATTENTIONS["window"]}},
        "pattern": ("near", "all"),
    },
    "moe": {
        "feedforward": {
            "kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2, "shared_experts": 1
        }
    },
}  # fmt: skip


def build(dtype=torch.float64, **changes):
    values = {"layers": 2, "width": 16, "context": 4 * W, "vocab_size": 11, "attention": "grouped"}
    generator = torch.Generator().manual_seed(1)
    decoder = DecoderSettings.model_validate(values | changes).build(generator).to(dtype).eval()
    if decoder.ngram is not None:
        decoder.ngram.count([torch.arange(400) ** 3 // 7 % 11])
    with torch.no_grad():  # a fresh model's output projections may be zero: nothing to compare
        for parameter in decoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(dtype) * 0.2)
    return decoder


def cut(length: int, size: int) -> list[int]:
    return [size] * (length // size) + ([length % size] if length % size else [])


def prefill_then_one(length: int) -> list[int]:
    return [max(length - 3, 1), *[1] * min(3, length - 1)]


CUTS = {"one": lambda n: cut(n, 1), "three": lambda n: cut(n, 3), "prefill": prefill_then_one}
CACHES = {
    "full": FullCacheSettings(room=2),
    "window": WindowCacheSettings(),
    "paged": PagedCacheSettings(block=4),
    "spilled": SpilledCacheSettings(room=2),
}
EVERY = tuple(itertools.product((W - 1, W, W + 1, 3 * W), CUTS, CACHES))
PAIRS = (
    (W + 1, "one", "full"), (W + 1, "three", "full"), (W + 1, "prefill", "window"),
    (3 * W, "one", "window"), (3 * W, "three", "window"), (3 * W, "prefill", "full"),
)  # fmt: skip
exhaustive_too = pytest.mark.parametrize(
    "ways", [PAIRS, pytest.param(EVERY, marks=pytest.mark.exhaustive)], ids=["pairs", "every"]
)


@torch.inference_mode()
def compare(decoder, ways, tolerance=1e-10):
    for length, group in itertools.groupby(ways, key=lambda way: way[0]):
        generator = torch.Generator().manual_seed(2)
        tokens = torch.randint(0, 11, (3, length), generator=generator)
        expected = decoder(tokens).logits
        for _, pieces, settings in group:
            cache = CACHES[settings].build(cache_specs(decoder))
            parts = [
                decoder(piece, context=ForwardContext(cache=cache)).logits
                for piece in tokens.split(CUTS[pieces](length), 1)
            ]
            torch.testing.assert_close(torch.cat(parts, 1), expected, atol=tolerance, rtol=0)
            assert cache.length == length


@exhaustive_too
@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
def test_every_attention_at_every_length_around_the_window(attention, ways):
    compare(build(attention=attention), ways)


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
def test_every_attention_in_float32(attention):
    ways = [(3 * W, "three", "full"), (3 * W, "prefill", "window")]
    compare(build(torch.float32, attention=attention), ways, tolerance=1e-4)


MLA = {"kind": "mla", "heads": 4, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}
FORMS = {"grouped": {"kind": "grouped", "heads": 4, "kv_heads": 2},
         "absorbed": {**MLA, "absorb": True}, "raised": {**MLA, "absorb": False}}  # fmt: skip
SPARSE = {
    "blocks": {"kind": "blocks", "size": 2, "local": 0, "first": 0, "chosen": 2},
    "dilated": {"kind": "dilated", "stride": 3},
}


@pytest.mark.parametrize("pattern", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("attention", FORMS.values(), ids=FORMS)
@torch.inference_mode()
def test_positions_are_known_behind_a_gap_between_sinks_and_window(attention, pattern):
    mask = {"window": 7, "sinks": 2, "sparse": pattern}
    decoder = build(layers=1, attention=attention | mask)
    tokens = torch.randint(0, 11, (2, 18), generator=torch.Generator().manual_seed(4))
    cache = WindowCacheSettings().build(cache_specs(decoder))
    pieces = [
        decoder(piece, context=ForwardContext(cache=cache)).logits
        for piece in tokens.split([11, 1, 3, 1, 1, 1], 1)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), decoder(tokens).logits, atol=1e-10, rtol=0)


@exhaustive_too
@pytest.mark.parametrize("changes", PARTS.values(), ids=PARTS)
def test_every_position_embedding_and_pattern(changes, ways):
    compare(build(**changes), ways)


def test_every_member_of_the_unions_is_here():
    assert {each["kind"] for each in ATTENTIONS.values()} == {*map(kind_of, members(Attention))}
    assert {f"embedding {kind_of(each)}" for each in members(Embedding)} <= set(PARTS)


@torch.inference_mode()
def test_a_cache_smaller_than_the_layers_own_window_is_a_smaller_window():
    full = build(attention={"kind": "grouped", "heads": 4})
    narrow = build(attention={"kind": "grouped", "heads": 4, "window": 3})
    tokens = torch.randint(0, 11, (2, 17), generator=torch.Generator().manual_seed(3))
    cache = WindowCacheSettings(size=3).build(cache_specs(full))
    got = torch.cat(
        [full(piece, context=ForwardContext(cache=cache)).logits for piece in tokens.split(1, 1)], 1
    )
    torch.testing.assert_close(got, narrow(tokens).logits, atol=1e-10, rtol=0)
    assert not torch.allclose(got, full(tokens).logits, atol=1e-3)


@torch.inference_mode()
def test_memory_of_a_windowed_model_stops_growing():
    decoder = build(attention=ATTENTIONS["window"])
    cache = WindowCacheSettings().build(cache_specs(decoder))
    sizes = []
    for _ in range(60):
        decoder(torch.zeros(1, 1, dtype=torch.long), context=ForwardContext(cache=cache))
        sizes.append(cache.nbytes)
    assert sizes[0] == sizes[-1] == 2 * 2 * 2 * (2 * (W - 1)) * 4 * 8
