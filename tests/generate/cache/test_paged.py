"""The paged cache: blocks are shared, never mixed up, and given back."""

import functools

import pytest
import torch

from coterie.generate.cache import PagedCacheSettings, PrefixStore
from coterie.generate.session import cache_specs
from coterie.model import DecoderSettings
from coterie.model.context import ForwardContext

SIZE = 4
SETTINGS = PagedCacheSettings(block=SIZE)


def build(**changes):
    values = {
        "layers": 2, "width": 16, "context": 128, "vocab_size": 11,
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
        "initial": {"std": 0.3, "outputs": "plain"},
    } | changes  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0))
    return decoder.double().eval()


@functools.cache
def plain():
    return build()


STRUCTURE = {
    "kind": "structure",
    "kinds": {"speaker": {"opening": "<S>", "closing": "</S>", "opening_id": 1, "closing_id": 2,
                          "follow": "name", "bound": 5}},
}  # fmt: skip


def text(length, seed=0):
    return torch.randint(0, 11, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def read(decoder, cache, tokens):
    return decoder(torch.tensor([tokens]), context=ForwardContext(cache=cache)).logits[0]


def begun(decoder, store, tokens, settings=SETTINGS):
    """Return a cache that has read a text, how much of it was there, and the last logits."""
    cache = settings.build(cache_specs(decoder))
    known = cache.adopt([tokens], store)
    return cache, known, read(decoder, cache, tokens[known:])[-1]


@pytest.mark.parametrize("length", [1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE, 3 * SIZE + 1])
def test_a_text_goes_on_from_what_another_has_read(length):
    decoder = plain()
    store, beginning = PrefixStore(decoder), text(length)
    begun(decoder, store, [*beginning, *text(5, seed=1)])
    whole = [*beginning, *text(6, seed=2)]
    cache, known, logits = begun(decoder, store, whole)
    assert known == length // SIZE * SIZE
    expected = decoder(torch.tensor([whole])).logits[0, -1]
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    assert cache.lengths == (len(whole),)
    assert (store.stats.asked, store.stats.found) == (2 * length + 11, known)
    # And again, with everything known but the last token.
    cache, known, logits = begun(decoder, store, whole)
    assert known == (len(whole) - 1) // SIZE * SIZE
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    assert cache.recent_tokens(3).tolist() == [whole[-3:]]


def test_salts_sizes_and_weights_keep_texts_apart():
    decoder = build()
    store, tokens = PrefixStore(decoder), text(20)
    assert begun(decoder, store, tokens)[1] == 0
    assert begun(decoder, store, tokens)[1] == 16
    other = PagedCacheSettings(block=SIZE, salt="another reader")
    assert begun(decoder, store, tokens, other)[1] == 0
    with torch.no_grad():
        next(decoder.parameters()).mul_(1.5)
    _, known, logits = begun(decoder, store, tokens)
    assert known == 0
    torch.testing.assert_close(
        logits, decoder(torch.tensor([tokens])).logits[0, -1], atol=1e-10, rtol=0
    )


def test_tokens_are_compared_on_a_hit():
    decoder = plain()
    store = PrefixStore(decoder)
    first, _, _ = begun(decoder, store, text(20))
    index = first._table.pool.index
    digest, node = next(iter(index._nodes.items()))
    index._nodes[digest] = type(node)(node.block, (9, *node.tokens[1:]), node.state)
    assert begun(decoder, store, text(20))[1] == 0


def test_samples_hold_the_same_blocks_until_they_write():
    decoder = plain()
    cache, _, _ = begun(decoder, PrefixStore(decoder), text(SIZE * 3 + 2))
    before = cache.nbytes
    with torch.inference_mode():
        cache.select(torch.tensor([0, 0, 0]))
        assert cache.nbytes == before
        new = torch.tensor([[1], [2], [3]])
        got = decoder(new, context=ForwardContext(cache=cache)).logits[:, -1]
        expected = decoder(
            torch.tensor([[*text(SIZE * 3 + 2), number] for number in (1, 2, 3)])
        ).logits[:, -1]
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
    # The three full blocks are shared; the last one is three blocks now, of four before.
    assert cache.nbytes == before // 4 * 6
    rows = [row.blocks for row in cache._table.rows]
    assert rows[0][:3] == rows[1][:3] == rows[2][:3]
    assert len({row[3] for row in rows}) == 3


def test_the_longest_idle_blocks_go_first_and_a_texts_end_before_its_beginning():
    decoder = plain()
    settings = PagedCacheSettings(block=SIZE, keep=5 * SIZE)
    store = PrefixStore(decoder)
    one, two = [1, *text(15)], [2, *text(15, seed=1)]
    begun(decoder, store, one, settings)
    begun(decoder, store, two, settings)  # four blocks each, room for five
    assert begun(decoder, store, [*two, 0], settings)[1] == 16
    assert begun(decoder, store, [*one, 0], settings)[1] == 4
    assert store.stats.idle <= 5 * SIZE


def test_blocks_are_given_back():
    decoder = plain()
    store = PrefixStore(decoder)
    pool = store.pool(SETTINGS)
    for number in range(40):  # the texts differ in their first block
        begun(decoder, store, [number % 11, number // 11, *text(30)], SETTINGS)
    held = [each for each in range(pool.capacity) if pool._holders[each]]
    assert held == []
    assert len(pool._free) + pool.idle == pool.capacity
    assert pool.capacity <= 2 * 40 * 8


def test_what_is_known_never_changes_though_rows_are_taken_back():
    decoder = plain()
    store, tokens = PrefixStore(decoder), text(SIZE * 3)
    cache, _, _ = begun(decoder, store, tokens)
    with torch.inference_mode():
        cache.truncate((SIZE + 2,))
    read(decoder, cache, [10, 10, 10])  # where other tokens are known
    _, known, logits = begun(decoder, store, [*tokens, 5])
    assert known == SIZE * 3
    expected = decoder(torch.tensor([[*tokens, 5]])).logits[0, -1]
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("length", [SIZE * 2, SIZE * 2 + 3])
def test_parts_that_carry_a_state_go_on_where_it_is_known(length):
    decoder = build(additive=[STRUCTURE])
    store, tokens = PrefixStore(decoder), [1, 5, 2, 3, *text(20)]
    begun(decoder, store, tokens[:length])
    _, known, logits = begun(decoder, store, tokens)
    assert known == (length if length % SIZE == 0 else 0)
    expected = decoder(torch.tensor([tokens])).logits[0, -1]
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


def test_models_of_summaries_share_nothing():
    latent = {"kind": "latent_vectors", "heads": 2, "chunk": 4, "latents": 2}
    decoder = build(attention=latent)
    store = PrefixStore(decoder)
    assert [begun(decoder, store, text(20))[1] for _ in range(2)] == [0, 0]
