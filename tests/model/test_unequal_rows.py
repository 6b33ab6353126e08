"""Rows of unequal length in one batch give what each gives alone, with and without a cache."""

from __future__ import annotations

import functools
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
from coterie.model import Attention, DecoderSettings, Position
from coterie.model.attention.backends import Backend
from coterie.model.context import ForwardContext

VOCAB, CONTEXT = 11, 128
LENGTHS = (1, 5, 17, 96)
GROUPED = {"kind": "grouped", "heads": 4, "kv_heads": 2}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}
STRUCTURE = {
    "kind": "structure",
    "kinds": {
        "speaker": {"opening": "<S>", "closing": "</S>", "opening_id": 1, "closing_id": 2,
                    "follow": "name", "bound": 5},
        "scene": {"opening": "<C>", "closing": "</C>", "opening_id": 3, "closing_id": 4,
                  "follow": "count", "bound": 3},
    },
}  # fmt: skip
MOE = {
    "kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2, "balance": "bias"
}  # fmt: skip
MASKS = {
    "all": {},
    "window": {"window": 7},
    "sinks": {"window": 6, "sinks": 2},
    "strided": {"sparse": {"kind": "strided", "stride": 4}},
    "dilated window": {"window": 20, "sinks": 1, "sparse": {"kind": "dilated", "stride": 3}},
    "blocks": {"sparse": {"kind": "blocks", "size": 4, "chosen": 1}},
}
MODELS = {
    **{f"grouped {name}": {"attention": GROUPED | mask} for name, mask in MASKS.items()},
    **{f"mla {name}": {"attention": MLA | mask} for name, mask in MASKS.items()},
    "mla plain": {"attention": MLA | {"absorb": False}},
    "latent vectors": {
        "attention": {"kind": "latent_vectors", "heads": 4, "chunk": 4, "latents": 2}
    },
    **{f"position {kind_of(each)}": {"position": kind_of(each)} for each in members(Position)},
    "ngram": {"embedding": {"kind": "ngram", "rows": 64, "orders": (2, 3, 4)}},
    "counted": {"ngram": {"order": 4, "entries": 300}},
    "structure": {"additive": [STRUCTURE]},
    "moe": {"feedforward": MOE},
    "window below all": {
        "blocks": {"all": {}, "near": {"attention": GROUPED | MASKS["sinks"]}},
        "pattern": ("near", "all"),
    },
}  # fmt: skip
CACHES = {
    "full": FullCacheSettings(room=2),
    "window": WindowCacheSettings(),
    "paged": PagedCacheSettings(block=4),
    "spilled": SpilledCacheSettings(room=2),
}


def build(**changes):
    values = {"layers": 2, "width": 16, "context": CONTEXT, "vocab_size": VOCAB,
              "attention": GROUPED}  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    decoder = DecoderSettings.model_validate(values | changes).build(generator).double().eval()
    if decoder.ngram is not None:
        decoder.ngram.count([torch.arange(400) ** 3 // 7 % VOCAB])
    with torch.no_grad():  # a fresh model's output projections may be zero: nothing to compare
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double() * 0.2)
    return decoder


def draw(length=LENGTHS[-1]):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, VOCAB, (len(LENGTHS), length), generator=generator)


def documents_of(tokens):
    """Cut each row into documents at other places: of 1, 2, … tokens, and so on."""
    at = torch.arange(tokens.shape[1])
    return torch.stack([(at / (3 + 2 * row)).sqrt().long() for row in range(len(tokens))])


@functools.cache
@torch.inference_mode()
def known(name, packed):
    """Return a decoder and each row's logits alone, computed once for all ways to read them."""
    decoder, tokens = build(**MODELS[name]), draw()
    documents = documents_of(tokens) if packed else None
    return decoder, tokens, documents, alone(decoder, tokens, documents)


@torch.inference_mode()
def alone(decoder, tokens, documents=None):
    """Return each row's logits, every document of it read by itself."""
    found = []
    for row, length in enumerate(LENGTHS):
        ids = [0] * length if documents is None else documents[row, :length].tolist()
        runs = [len(list(group)) for _, group in itertools.groupby(ids)]
        parts = tokens[row : row + 1, :length].split(runs, 1)
        found.append(torch.cat([decoder(part).logits[0] for part in parts]))
    return found


def check(got, expected):
    for row, (length, logits) in enumerate(zip(LENGTHS, expected, strict=True)):
        torch.testing.assert_close(
            got[row, :length], logits, rtol=0, atol=1e-10, msg=lambda m, n=length: f"{n}: {m}"
        )


def test_every_attention_and_position_is_tested():
    kinds = {values["attention"]["kind"] for values in MODELS.values() if "attention" in values}
    assert kinds == {kind_of(each) for each in members(Attention)}


@pytest.mark.parametrize("packed", [False, True], ids=["", "packed"])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_read_at_once(name, packed):
    decoder, tokens, documents, expected = known(name, packed)
    context = ForwardContext(documents=documents, lengths=LENGTHS)
    check(decoder(tokens, context=context).logits, expected)


def pairs_of_each():
    """Return every model with every cache, packed or not.

    Half of them, by turns, run each time; of the caches that keep what others keep, a sixth.
    """
    found = itertools.product(enumerate(MODELS), enumerate(CACHES), (False, True))
    for (number, name), (kind, cache), packed in found:
        always = (number + kind + packed) % (2 if kind < 2 else 6) == 0
        yield pytest.param(name, packed, cache, marks=() if always else pytest.mark.exhaustive)


@pytest.mark.parametrize(("name", "packed", "cache"), list(pairs_of_each()))
@torch.inference_mode()
def test_read_through_a_cache_in_unequal_chunks(name, packed, cache):
    decoder, tokens, documents, expected = known(name, packed)
    past = CACHES[cache].build(cache_specs(decoder))
    done, found = [0] * len(LENGTHS), [[] for _ in LENGTHS]
    sizes = iter([1, 4, 3, 30, 1, 1])  # at first all rows read as much; then some have nothing new
    while any(a < b for a, b in zip(done, LENGTHS, strict=True)):
        size = next(sizes, 40)
        new = tuple(min(size, b - a) for a, b in zip(done, LENGTHS, strict=True))
        piece = torch.zeros(len(LENGTHS), max(new), dtype=torch.long)
        ids = torch.zeros_like(piece)
        for row, (start, count) in enumerate(zip(done, new, strict=True)):
            piece[row, :count] = tokens[row, start : start + count]
            if documents is not None:
                ids[row, :count] = documents[row, start : start + count]
        context = ForwardContext(
            cache=past, lengths=new, documents=None if documents is None else ids
        )
        logits = decoder(piece, context=context).logits
        for row, count in enumerate(new):
            found[row].append(logits[row, :count])
        done = [a + b for a, b in zip(done, new, strict=True)]
    for row, logits in enumerate(expected):
        torch.testing.assert_close(torch.cat(found[row]), logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["grouped sinks", "mla window", "latent vectors", "structure"])
@pytest.mark.parametrize("cache", CACHES)
@torch.inference_mode()
def test_rows_can_be_chosen_anew_between_calls(name, cache):
    decoder, tokens = build(**MODELS[name]), draw(24)
    lengths = (1, 5, 17, 20)
    past = CACHES[cache].build(cache_specs(decoder))
    decoder(tokens[:, :20], context=ForwardContext(cache=past, lengths=lengths))
    rows = torch.tensor([2, 0, 2])
    past.select(rows)
    following = tokens[rows, 20:]
    got = decoder(following, context=ForwardContext(cache=past)).logits
    for place, row in enumerate(rows.tolist()):
        text = torch.cat((tokens[row, : lengths[row]], following[place]))
        torch.testing.assert_close(
            got[place], decoder(text[None]).logits[0, -4:], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("backend", [kind_of(each) for each in members(Backend)])
@torch.inference_mode()
def test_every_back_end_reads_unequal_rows(backend):
    if backend == "flash":
        pytest.skip("runs on CUDA only")
    attention = GROUPED | MASKS["sinks"] | {"backend": backend}
    decoder, tokens = build(attention=attention, layers=1), draw(40)
    past = FullCacheSettings().build(cache_specs(decoder))
    first, second = (3, 20, 1, 9), (5, 1, 16, 8)
    decoder(tokens[:, :20], context=ForwardContext(cache=past, lengths=first))
    got = decoder(tokens[:, 20:36], context=ForwardContext(cache=past, lengths=second)).logits
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        text = torch.cat((tokens[row, :a], tokens[row, 20 : 20 + b]))
        torch.testing.assert_close(
            got[row, :b], decoder(text[None]).logits[0, a:], rtol=0, atol=1e-10
        )


@torch.inference_mode()
def test_padding_moves_nothing_and_counts_nowhere():
    decoder, tokens = build(feedforward=MOE), draw()
    context = ForwardContext(lengths=LENGTHS)
    output = decoder(tokens, context=context)
    other = tokens.clone()
    for row, length in enumerate(LENGTHS):
        other[row, length:] = (other[row, length:] + 1) % VOCAB
    again = decoder(other, context=context)
    for one, two in zip(output.router_stats, again.router_stats, strict=True):
        assert int(one.load.sum()) == 2 * sum(LENGTHS)
        assert torch.equal(one.load, two.load)
    last = decoder(tokens, context=context, last=1).logits
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(last[row, 0], output.logits[row, length - 1])


def test_frequencies_follow_each_rows_own_length():
    scaling = {"kind": "dynamic", "factor": 2.0, "original_context": 16}
    decoder = build(position={"kind": "rotary", "scaling": scaling})
    tokens = draw()
    with torch.inference_mode():
        for documents in (None, documents_of(tokens)):
            context = ForwardContext(documents=documents, lengths=LENGTHS)
            check(decoder(tokens, context=context).logits, alone(decoder, tokens, documents))


def test_a_row_without_any_token_is_refused():
    decoder = build()
    past = FullCacheSettings().build(cache_specs(decoder))
    cases = {(0, 1, 1, 1): "at least one", (9, 1, 1, 1): "9 real", (1,): "1 len"}
    for lengths, words in cases.items():
        with pytest.raises(ValueError, match=words):
            decoder(draw(4), context=ForwardContext(cache=past, lengths=lengths))
