"""Rows join, leave and take tokens back; what is read then is as if nothing else had ever been."""

import random

import pytest
import torch

from coterie.generate.cache import (
    CacheStack,
    FullCacheSettings,
    PagedCacheSettings,
    SpilledCacheSettings,
    WindowCacheSettings,
)
from coterie.generate.cache.stack import InPlaceCache, LayerCache
from coterie.generate.session import cache_specs
from coterie.model import CacheSpec, DecoderSettings
from coterie.model.context import ForwardContext

VOCAB, LONGEST, ROLLBACK = 11, 40, 6
GROUPED = {"kind": "grouped", "heads": 2}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4}
MODELS = {
    "all": {"attention": GROUPED},
    "window": {"attention": GROUPED | {"window": 5}},
    "sinks": {"attention": GROUPED | {"window": 6, "sinks": 2}},
    "mla": {"attention": MLA | {"window": 4}},
    "latent vectors": {
        "attention": {"kind": "latent_vectors", "heads": 2, "chunk": 3, "latents": 2}
    },
    "ngram": {"embedding": {"kind": "ngram", "rows": 64, "orders": (2, 3, 4)}},
    "learned": {"position": "learned"},
    "window below all": {
        "blocks": {"all": {}, "near": {"attention": GROUPED | {"window": 3}}},
        "pattern": ("near", "all"), "layers": 2,
    },
}  # fmt: skip
CACHES = {
    "full": FullCacheSettings(room=2),
    "window": WindowCacheSettings(),
    "paged": PagedCacheSettings(block=4),
    "spilled": SpilledCacheSettings(room=2),
}


def build(**changes):
    values = {"layers": 1, "width": 8, "context": 128, "vocab_size": VOCAB,
              "attention": GROUPED, "feedforward": {"kind": "dense", "mlp": "gated"}}  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    decoder = DecoderSettings.model_validate(values | changes).build(generator).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double() * 0.2)
    return decoder


class Walk:
    """Rows of a cache, the tokens that each has read, and the last logits of each."""

    def __init__(self, decoder, settings, even: bool) -> None:
        self.decoder, self.settings, self.even = decoder, settings, even
        self.cache, self.rows, self.taken = self.fresh(), [], []

    def fresh(self) -> CacheStack:
        return self.settings.build(cache_specs(self.decoder), rollback=ROLLBACK)

    def draw(self, count: int) -> list[int]:
        return [random.randrange(VOCAB) for _ in range(count)]

    def read(self, cache, rows, least: int) -> None:
        """Read a few tokens of each row."""
        size = random.randint(1, 7)
        new = [self.draw(size if self.even else random.randint(least, size)) for _ in rows]
        if not any(new):
            return
        tokens = torch.zeros(len(rows), max(map(len, new)), dtype=torch.long)
        for row, each in enumerate(new):
            tokens[row, : len(each)] = torch.tensor(each, dtype=torch.long)
            rows[row].extend(each)
        context = ForwardContext(cache=cache, lengths=tuple(map(len, new)))
        found = self.decoder(tokens, context=context, last=1).logits[:, 0]
        whole = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, each in enumerate(rows):
            whole[row, : len(each)] = torch.tensor(each, dtype=torch.long)
        context = ForwardContext(lengths=tuple(map(len, rows)))
        expected = self.decoder(whole, context=context, last=1).logits[:, 0]
        fresh = [row for row, each in enumerate(new) if each]
        torch.testing.assert_close(found[fresh], expected[fresh], rtol=0, atol=1e-10)
        if cache is self.cache:
            self.taken = [max(old - len(a), 0) for a, old in zip(new, self.taken, strict=True)]

    def join(self) -> None:
        other, rows = self.fresh(), [[] for _ in range(random.randint(1, 2))]
        if self.even and self.rows:
            rows = [self.draw(len(self.rows[0])) for _ in rows]
            self.decoder(torch.tensor(rows), context=ForwardContext(cache=other))
        else:
            self.read(other, rows, least=1)
        self.cache.join(other)
        self.rows += rows
        self.taken += [0] * len(rows)

    def select(self) -> None:
        kept = list(range(len(self.rows)))
        if random.random() < 0.5 and len(kept) > 1:  # one leaves, the last takes its place
            gone = random.choice(kept)
            kept[gone] = kept[-1]
            kept.pop()
        else:
            kept = random.choices(kept, k=random.randint(1, 3))
        self.cache.select(torch.tensor(kept))
        self.rows = [list(self.rows[row]) for row in kept]
        self.taken = [self.taken[row] for row in kept]

    def truncate(self) -> None:
        """Take back up to as many as may be since the row's last reading."""
        each = random.randint(0, ROLLBACK)
        counts = []
        for row, taken in zip(self.rows, self.taken, strict=True):
            most = min(ROLLBACK - taken, len(row) - 1)
            counts.append(max(min(each if self.even else random.randint(0, 9), most), 0))
        if self.even:
            counts = [min(counts)] * len(counts)
        self.rows = [row[: len(row) - n] for row, n in zip(self.rows, counts, strict=True)]
        self.taken = [a + b for a, b in zip(self.taken, counts, strict=True)]
        self.cache.truncate(tuple(map(len, self.rows)))

    @torch.inference_mode()
    def go(self, steps: int) -> None:
        self.join()
        for _ in range(steps):
            move = random.choice([self.join, self.select, self.truncate, self.truncate])
            if len(self.rows) > 4:
                move = self.select
            move()
            assert self.cache.rows == len(self.rows)
            assert self.cache.lengths == tuple(map(len, self.rows))
            if max(map(len, self.rows)) > LONGEST:
                self.cache, self.rows, self.taken = self.fresh(), [], []
                self.join()
            self.read(self.cache, self.rows, least=0)


def walks():
    """Return each model with each cache, every second one in lockstep; longer and all otherwise."""
    for number, name in enumerate(MODELS):
        for kind, cache in enumerate(CACHES):
            even = (number // 2 + kind) % 2 == 0
            always = kind < 2 or (number + kind) % 4 == 0
            yield pytest.param(name, cache, even, 5, marks=() if always else pytest.mark.exhaustive)
            for each in (False, True):
                yield pytest.param(name, cache, each, 150, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(("name", "cache", "even", "steps"), list(walks()))
def test_rows_read_on_as_if_alone_and_never_taken_back(name, cache, even, steps):
    Walk(build(**MODELS[name]), CACHES[cache], even).go(steps)


STRUCTURE = {
    "kind": "structure",
    "kinds": {"speaker": {"opening": "<S>", "closing": "</S>", "opening_id": 1, "closing_id": 2,
                          "follow": "name", "bound": 5}},
}  # fmt: skip


@torch.inference_mode()
def test_what_parts_carry_joins_and_is_told_to_truncate():
    decoder = build(additive=[STRUCTURE])
    tokens = torch.tensor([[1, 5, 2, 1, 7], [3, 1, 9, 4, 2]])
    cache, other = (FullCacheSettings().build(cache_specs(decoder)) for _ in range(2))
    decoder(tokens[:1, :2], context=ForwardContext(cache=cache))
    decoder(tokens[1:, :2], context=ForwardContext(cache=other))
    cache.join(other)
    after_two = dict(cache.state)
    decoder(tokens[:, 2:], context=ForwardContext(cache=cache))
    with pytest.raises(ValueError, match="carries a state"):
        cache.truncate((2, 2))
    cache.truncate((2, 2), after_two)
    got = decoder(tokens[:, 2:], context=ForwardContext(cache=cache)).logits
    torch.testing.assert_close(got, decoder(tokens).logits[:, 2:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("cache", CACHES)
@torch.inference_mode()
def test_documents_join_and_are_taken_back(cache):
    decoder = build(attention=GROUPED | {"window": 6, "sinks": 2})
    tokens = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(3))
    documents = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]).expand(3, -1)
    expected = decoder(tokens, context=ForwardContext(documents=documents)).logits
    plain = decoder(tokens[2:, 5:]).logits  # of one document, since nothing was said

    specs = cache_specs(decoder)
    stack, other, third = (CACHES[cache].build(specs, rollback=4) for _ in range(3))
    for row, past, size in ((0, stack, 9), (1, other, 5)):
        piece = slice(row, row + 1), slice(0, size)
        decoder(tokens[piece], context=ForwardContext(cache=past, documents=documents[piece]))
    decoder(tokens[2:, 5:9], context=ForwardContext(cache=third))
    stack.join(other)
    stack.join(third)
    stack.truncate((6, 4, 3))  # the first goes back into a document that had ended
    rest, ids = torch.zeros(3, 6, dtype=torch.long), torch.zeros(3, 6, dtype=torch.long)
    for row, start in enumerate((6, 4, 8)):
        count = min(6, 12 - start)
        rest[row, :count] = tokens[row, start : start + count]
        ids[row, :count] = documents[row, start : start + count] if row < 2 else 0
    context = ForwardContext(cache=stack, documents=ids, lengths=(6, 6, 4))
    got = decoder(rest, context=context).logits
    torch.testing.assert_close(got[0], expected[0, 6:], rtol=0, atol=1e-10)
    torch.testing.assert_close(got[1], expected[1, 4:10], rtol=0, atol=1e-10)
    torch.testing.assert_close(got[2, :4], plain[0, 3:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("uneven", [False, True])
@torch.inference_mode()
def test_no_more_is_taken_back_than_was_kept_for_it(uneven):
    decoder = build(attention=GROUPED | {"window": 3})
    for settings in (WindowCacheSettings(), FullCacheSettings()):
        cache = settings.build(cache_specs(decoder), rollback=2)
        tokens = torch.zeros(2, 12, dtype=torch.long)
        lengths = (12, 11) if uneven else (12, 12)
        decoder(tokens, context=ForwardContext(cache=cache, lengths=lengths))
        for wrong in ((13, 11), (0, 11), (12,)):
            with pytest.raises(ValueError, match="cannot be truncated"):
                cache.truncate(wrong)
        if isinstance(settings, FullCacheSettings):
            cache.truncate((1, 4))
            assert cache.lengths == (1, 4)
        else:
            with pytest.raises(ValueError, match="from 9 on cannot be taken back"):
                cache.truncate((9, 9))


@torch.inference_mode()
def test_a_row_that_leaves_is_not_paid_for_by_the_others():
    cache = FullCacheSettings(room=4).build([CacheSpec()])
    layer = cache.layers[0]
    keys = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 2, 3, 4).clone()
    layer.append(keys, keys)
    cache.extend(torch.zeros(8, 3, dtype=torch.long))
    place = layer.memory(0)[0].data_ptr()
    cache.select(torch.tensor([0, 7, 2, 3, 4, 5, 6]))
    held, _ = layer.memory(1)
    assert held.data_ptr() == place
    assert held[:, 0, 0, 0].tolist() == [0, 7, 2, 3, 4, 5, 6]
    cache.select(torch.tensor([2, 1]))  # an order that would overwrite itself is copied
    assert layer.memory(0)[0][:, 1, 2, 3].tolist() == [2, 7]


@torch.inference_mode()
def test_what_a_row_left_behind_never_reaches_the_row_that_takes_its_place():
    decoder, settings = build(), FullCacheSettings(room=2)
    tokens = torch.randint(VOCAB, (3, 9), generator=torch.Generator().manual_seed(3))
    cache, other = (settings.build(cache_specs(decoder)) for _ in range(2))
    decoder(tokens[:2, :8], context=ForwardContext(cache=cache))
    for layer in cache.layers:
        for each in layer.memory(0):
            each[1] = float("nan")  # its weights overflowed, say
    cache.select(torch.tensor([0]))
    decoder(tokens[2:, :3], context=ForwardContext(cache=other))
    cache.join(other)
    piece = torch.stack((tokens[0, 8:9], tokens[2, 3:4]))
    got = decoder(piece, context=ForwardContext(cache=cache)).logits
    for row, length in ((0, 9), (2, 4)):
        expected = decoder(tokens[row : row + 1, :length], last=1).logits[0, 0]
        torch.testing.assert_close(got[0 if row == 0 else 1, 0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("uneven", [False, True])
@torch.inference_mode()
def test_memory_may_be_written_in_place(uneven):
    """What a pass of its own writes is the past of the next call."""
    decoder = build()
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(3))
    settings, lengths = FullCacheSettings(room=2), (5, 3 if uneven else 5)
    cache, twin = (settings.build(cache_specs(decoder)) for _ in range(2))
    for each in (cache, twin):
        decoder(tokens[:, :5], context=ForwardContext(cache=each, lengths=lengths))
    step = tokens[:, 5:7]
    decoder(step, context=ForwardContext(cache=twin))
    for layer, known in zip(cache.layers, twin.layers, strict=True):
        assert isinstance(layer, InPlaceCache)
        for held, written in zip(layer.memory(2), known.memory(0), strict=True):
            assert held.is_contiguous()
            assert held.shape[2] >= 7
            for row, length in enumerate(lengths):
                held[row, :, length : length + 2] = written[row, :, length : length + 2]
    cache.advance(step)
    assert cache.lengths == twin.lengths == tuple(each + 2 for each in lengths)
    assert torch.equal(cache.recent_tokens(3), twin.recent_tokens(3))
    got, expected = (
        decoder(tokens[:, 7:], context=ForwardContext(cache=each)).logits for each in (cache, twin)
    )
    assert torch.equal(got, expected)


def test_every_layer_can_do_what_generation_asks():
    specs = [CacheSpec(), CacheSpec(3, 1), CacheSpec(summaries=True, run=4)]
    for settings in CACHES.values():
        assert all(isinstance(each, LayerCache) for each in settings.build(specs, 2).layers)
