"""The native pass gives the logits of the decoder itself, and says what it cannot serve."""

import copy
import itertools

import pytest
import torch

from coterie.foundation.layers import load_settings
from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.cache import (
    FullCacheSettings,
    PagedCacheSettings,
    PrunedCacheSettings,
    WindowCacheSettings,
)
from coterie.generate.cache.stack import InPlaceCache
from coterie.generate.passes.eager import EagerPass
from coterie.generate.passes.interface import Call
from coterie.generate.passes.native import ENTRIES, NativePass
from coterie.generate.session import cache_specs
from coterie.model import DecoderSettings
from coterie.presets import preset_layers, preset_names
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train.settings import RunSettings

VOCAB, CONTEXT = 23, 24
MOE = {"kind": "moe", "experts": [{"count": 6, "mlp": {"kind": "gated", "width": 24}}]}


def moe(per_token=2, **changes):
    return {"feedforward": MOE | {"experts_per_token": per_token} | changes}


def mlp(kind, **changes):
    return {"feedforward": {"kind": "dense", "mlp": {"kind": kind, "width": 24} | changes}}


def grouped(**changes):
    return {"attention": {"kind": "grouped", "heads": 4, "kv_heads": 2} | changes}


def rotary(**changes):
    return {"position": {"kind": "rotary"} | changes}


def mla(**changes):
    sizes = {"heads": 4, "kv_rank": 8, "query_rank": 6, "nope_dim": 5, "rope_dim": 4}
    return {"attention": {"kind": "mla", "value_dim": 7} | sizes | changes}


def latent_vectors(**changes):
    sizes = {"heads": 4, "kv_heads": 2, "chunk": 9, "latents": 3}
    return {"attention": {"kind": "latent_vectors"} | sizes | changes}


def sparse(kind, window=None, sinks=0, **sizes):
    return grouped(window=window, sinks=sinks, sparse={"kind": kind} | sizes)


STRUCTURE = [
    {
        "kind": "structure",
        "kinds": {
            name: {"opening": f"<{name}>", "closing": f"</{name}>", "follow": follow, "bound": 3}
            | {"opening_id": 2 * number, "closing_id": 2 * number + 1}
            for number, (name, follow) in enumerate(
                {"speaker": "name", "scene": "count", "stage": "inside"}.items()
            )
        },
    }
]
YARN = {"kind": "yarn", "factor": 2.0, "original_context": 16}
PARTS = {
    "plain": {},
    "one key head": grouped(kv_heads=1),
    "biases": grouped(bias=True),
    "head norm": grouped(query_key_norm="rms"),
    "joint norm": grouped(query_key_norm="layer", query_key_norm_over="all"),
    "window": grouped(window=5),
    "sinks": grouped(window=4, sinks=2),
    "wide heads": grouped(head_dim=12),
    "interleaved": rotary(layout="interleaved"),
    "half rotated": rotary(fraction=0.5),
    "dynamic scaling": rotary(scaling={"kind": "dynamic", "factor": 2.0, "original_context": 17}),
    "yarn": rotary(scaling=YARN),
    "learned": {"position": {"kind": "learned"}},
    "no positions": {"position": {"kind": "none"}},
    "layer norm": {"norm": {"kind": "layer", "bias": True}},
    "bare norm": {"norm": {"kind": "layer", "scale": False}, "embedding_norm": True},
    "gelu": mlp("gated", activation="gelu", bias=True),
    "tanh": mlp("mlp", activation="gelu_tanh"),
    "relu": mlp("mlp", activation="relu"),
    "squared": mlp("wide", activation="relu_squared", bias=True),
    "deep": mlp("deep", bias=True),
    "hybrid": mlp("hybrid", bias=True),
    "moe": moe(),
    "one expert": moe(1, router={"scale": 2.5}),
    "sigmoid": moe(3, router={"score": "sigmoid"}, balance={"kind": "bias", "rate": 0.1}),
    "dynamic": moe(4, router={"select": {"kind": "dynamic", "mass": 0.3}, "score": "sigmoid"}),
    "groups": moe(
        3, router={"select": {"kind": "group_limited", "groups": 3, "groups_per_token": 2}}
    ),
    "shared": moe(shared_experts=2, shared_gate=True),
    "unlike experts": moe(
        3,
        experts=[
            {"count": 2, "mlp": {"kind": "hybrid", "width": 16}},
            {"count": 2, "mlp": {"kind": "deep", "width": 8, "bias": True}},
            {"count": 1, "mlp": {"kind": "null", "output": "copy"}},
            {"count": 1, "mlp": {"kind": "null"}},
        ],
    ),
    "strided": sparse("strided", stride=3),
    "strided window": sparse("strided", 7, 2, stride=3),
    "dilated": sparse("dilated", 8, 1, stride=2),
    "blocks": sparse("blocks", size=2, local=1, first=1, chosen=2),
    "latents": mla() | rotary(),
    "latents, keys of heads": mla(rotary_key="per_head", latent_norm=None)
    | rotary(layout="interleaved", scaling=YARN),
    "latents, whole queries": mla(query_rank=None, bias=True, window=6, sinks=1),
    "latents, strided": mla(sparse={"kind": "strided", "stride": 3}),
    "latent vectors": latent_vectors() | rotary(scaling=YARN),
    "latent vectors, biases": latent_vectors(kv_heads=4, bias=True),
    "structure": {"additive": STRUCTURE} | rotary(),
    "parallel": {"block_layout": {"kind": "parallel", "norms": "own"}},
    "mixed": {"block_layout": {"kind": "parallel", "gate": "channel"}},
    "mixed by token": {"block_layout": {"kind": "parallel", "gate": "token"}},
    "factorised": {"embedding": {"kind": "factorised", "rank": 7}, "head": {"tied": True}},
    "n-grams": {"embedding": {"kind": "ngram", "orders": [1, 2, 3], "rows": 50, "dim": 8}},
    "added n-grams": {
        "embedding": {"kind": "ngram", "orders": [2, 4], "rows": 50, "combine": "add"}
    },
    "counted n-grams": {"ngram": {"order": 4, "entries": 300}},
    "both n-grams": {"ngram": {"order": 5}, "embedding": {"kind": "ngram", "rows": 50}},
    "tied head": {"head": {"tied": True, "bias": True}},
}


def build(**changes):
    values = {
        "layers": 2, "width": 32, "context": CONTEXT, "vocab_size": VOCAB,
        "initial": {"std": 0.3, "outputs": "plain"},
    } | grouped() | changes  # fmt: skip
    settings = DecoderSettings.model_validate(values)
    return randomised(settings.build(torch.Generator().manual_seed(0)))


def randomised(decoder):
    """Return a decoder with values that hide no mistake."""
    decoder.eval()
    if decoder.ngram is not None:
        decoder.ngram.count([torch.arange(400) ** 3 // 7 % VOCAB])
    with torch.no_grad():  # what begins as 0 or 1 would hide mistakes
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in decoder.named_buffers():
            if name.endswith("selection_bias"):
                buffer.add_(0.3 * torch.randn_like(buffer))
    return decoder


def served(decoder):
    native = NativePass(decoder)
    assert native.reason is None
    return native


def follow(decoder, lengths, steps, threads=1):
    """Return what both passes say of some steps after prompts of unequal lengths."""
    torch.set_num_threads(threads)
    try:
        passes = NativePass(decoder), EagerPass(decoder)
    finally:
        torch.set_num_threads(1)
    specs = cache_specs(decoder)
    caches = [FullCacheSettings(room=2).build(specs) for _ in passes]
    prompts = torch.randint(VOCAB, (len(lengths), max(lengths)))
    found = ([], [])
    with torch.inference_mode():
        for cache in caches:
            passes[1].read(Call(prompts, cache, lengths if len(set(lengths)) > 1 else None))
        for number in steps:
            tokens = torch.randint(VOCAB, (len(lengths), number))
            for each, cache, logits in zip(passes, caches, found, strict=True):
                call = Call(tokens, cache, last=number)
                assert each.refuses(call) is None
                logits.append(each.read(call).clone())
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        if not isinstance(one, InPlaceCache):
            continue
        assert isinstance(other, InPlaceCache)
        for mine, theirs in zip(one.memory(0), other.memory(0), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_every_part_gives_the_logits_of_the_decoder(part):
    ours, theirs = follow(build(**PARTS[part]), (3, 9, 1), (1, 1, 4, 1))
    for mine, logits in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["moe", "n-grams", "window"])
def test_two_threads_give_the_same_bits_as_one(part):
    torch.manual_seed(5)
    one = follow(build(**PARTS[part]), (3, 3), (1, 2))[0]
    torch.manual_seed(5)
    two = follow(build(**PARTS[part]), (3, 3), (1, 2), threads=2)[0]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_has_no_kernel_is_refused_with_a_reason():
    reason = NativePass(build().to(torch.bfloat16)).reason
    assert reason is not None
    assert "bfloat16" in reason


def test_calls_that_it_cannot_serve_are_refused():
    decoder = build(**PARTS["learned"])
    native, specs = NativePass(decoder), cache_specs(decoder)
    cache, one = FullCacheSettings().build(specs), torch.zeros(1, 1, dtype=torch.long)
    assert "prompt" in str(native.refuses(Call(one, None)))
    assert "prompt" in str(native.refuses(Call(one, cache)))
    with torch.inference_mode():
        EagerPass(decoder).read(Call(one.repeat(1, CONTEXT - 1), cache))
    assert native.refuses(Call(one, cache)) is None
    assert "positions" in str(native.refuses(Call(one.repeat(1, 2), cache)))
    assert "at most" in str(native.refuses(Call(one.repeat(1, ENTRIES + 1), cache)))


def test_parameters_may_change_between_steps():
    decoder = build(**PARTS["factorised"])
    native, cache = NativePass(decoder), FullCacheSettings().build(cache_specs(decoder))
    eager, tokens = EagerPass(decoder), torch.randint(VOCAB, (1, 1))
    with torch.inference_mode():
        eager.read(Call(tokens, cache))
    for in_place in (True, False):
        with torch.no_grad():
            for parameter in decoder.parameters():
                other = 0.5 * parameter
                if in_place:
                    parameter.copy_(other)
                else:
                    parameter.data = other
        copied = copy.deepcopy(cache)
        with torch.inference_mode():
            ours, theirs = native.read(Call(tokens, cache)), eager.read(Call(tokens, copied))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def tiny(name):
    """Return a preset's model at its tiny scale."""
    model = load_settings(RunSettings, preset_layers(name, "tiny")).settings.model
    tags = sorted({tag for each in model.additive for tag in each.tags().values()})
    ids = {tag: index for index, tag in enumerate(tags)}
    changed = {
        "vocab_size": VOCAB,
        "additive": tuple(each.with_ids(ids) for each in model.additive),
    }
    return randomised(model.model_copy(update=changed).build(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_served_and_gives_the_log_probabilities_of_torch(name):
    decoder = tiny(name)
    windows = {each.window for each in cache_specs(decoder) if each.window}
    longest = max(windows, default=14) - 2  # then on over its edge
    ours, theirs = follow(decoder, (3, longest, 7), (1,) * 40)
    for mine, logits in zip(ours, theirs, strict=True):
        both = mine.log_softmax(-1), logits.log_softmax(-1)
        torch.testing.assert_close(*both, atol=1e-5, rtol=0)


CACHES = {
    "paged": PagedCacheSettings(block=3),
    "window": WindowCacheSettings(size=5),
    "own window": WindowCacheSettings(),
    "pruned": PrunedCacheSettings(size=8, heavy=0, sinks=2),
}
LENGTHS = [(4,), (6, 6), (3, 9, 1)]
SLOW = pytest.mark.exhaustive
MOVED = [
    *((kind, "window" if kind == "own window" else "plain", (3, 9, 1)) for kind in CACHES),
    ("paged", "latents", (4,)),
    ("paged", "strided", (6, 6)),
    *(
        pytest.param(kind, part, lengths, marks=SLOW)
        for lengths in LENGTHS
        for kind, part in (
            *itertools.product(CACHES, ("plain", "window", "latents", "strided")),
            ("paged", "blocks"),
            ("paged", "dilated"),
            ("paged", "sinks"),
        )
    ),
]


@pytest.mark.parametrize(("kind", "part", "lengths"), MOVED)
def test_every_cache_that_kernels_read_gives_the_logits_of_torch(kind, part, lengths):
    decoder = build(**PARTS[part])
    settings, passes = CACHES[kind], (served(decoder), EagerPass(decoder))
    caches = [settings.build(cache_specs(decoder), rollback=2) for _ in passes]
    prompts = torch.randint(VOCAB, (len(lengths), max(lengths)))
    even = len(set(lengths)) == 1
    with torch.inference_mode():
        for cache in caches:
            passes[1].read(Call(prompts, cache, None if even else lengths))
        # Torch reads a step in between, rows leave, come and are repeated, tokens are taken back.
        several = 1 if kind == "window" else 3  # tokens read at once see each other there
        for step, number in enumerate((1, 1, several, 1, 1, 1, 1, 1, 1, several, 1, 1, 1)):
            batch = caches[0].rows
            tokens, found = torch.randint(VOCAB, (batch, number)), []
            for each, cache in zip(passes, caches, strict=True):
                call = Call(tokens, cache, last=number)
                refused = each.refuses(call)
                assert refused is None or number > 1, refused  # torch cuts what has grown long
                found.append((passes[1] if step == 5 or refused else each).read(call).clone())
            torch.testing.assert_close(*found, atol=2e-5, rtol=1e-5)
            for cache in caches:
                if step == 4:
                    cache.truncate(tuple(length - 2 for length in cache.lengths))
                if step == 7:
                    cache.select(torch.tensor([batch - 1, 0, 0]))
                if step == 8:
                    other = settings.build(cache_specs(decoder), rollback=2)
                    passes[1].read(Call(prompts[:1], other))
                    cache.join(other)


def test_caches_that_no_kernel_reads_are_left_to_torch():
    decoder = build(**PARTS["sinks"])
    native = served(decoder)
    for settings in (WindowCacheSettings(), PrunedCacheSettings(size=8)):
        decoder = decoder if settings.kind == "window" else build()
        cache = settings.build(cache_specs(decoder))
        with torch.inference_mode():
            EagerPass(decoder).read(Call(torch.zeros(1, 3, dtype=torch.long), cache))
        reason = native.refuses(Call(torch.zeros(1, 1, dtype=torch.long), cache))
        assert "no kernel reads this cache" in str(reason)


@pytest.mark.parametrize("kind", CACHES)
def test_texts_chosen_by_the_kernels_are_the_same_through_every_cache(kind):
    decoder = build(**PARTS["window" if kind == "own window" else "plain"], vocab_size=257)
    engines = [
        Engine(decoder, Bytes().build([]), passes=passes)
        for passes in ([served(decoder), EagerPass(decoder)], [EagerPass(decoder)])
    ]
    settings = SamplingSettings(max_tokens=30, temperature=0.7, cache=CACHES[kind])
    asked = [Request(text, settings, seed) for seed, text in enumerate(("Enter", "A", "Exit all"))]
    ours, theirs = ([made.tokens for made in each.generate_many(asked)] for each in engines)
    assert ours == theirs
    first = [engine.generate_samples("Enter", 3, settings) for engine in engines]  # equally long
    assert [each.tokens for each in first[0]] == [each.tokens for each in first[1]]
