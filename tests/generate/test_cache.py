"""Caches under a small attention of our own: whatever the pieces, the same result as at once."""

import functools

import pytest
import torch

from coterie.foundation.settings import members
from coterie.generate import SamplingSettings
from coterie.generate.cache import (
    CacheSettings,
    CacheStack,
    FullCacheSettings,
    NoCacheSettings,
    PagedCacheSettings,
    PrunedCacheSettings,
    QuantisedCacheSettings,
    SpilledCacheSettings,
    WindowCacheSettings,
)
from coterie.generate.session import DecodeSession
from coterie.model import CacheSpec, DecoderSettings

B, K, C = 2, 2, 4


def attend(queries, keys, values, start: int, first: int, window: int | None):
    """Causal attention of queries at `start`, ... over keys at `first`, ..., by the definition."""
    at = start + torch.arange(queries.shape[2])[:, None]
    of = first + torch.arange(keys.shape[2])[None, :]
    seen = (of <= at) & (of > at - (window or 1 << 30))
    scores = queries @ keys.transpose(-1, -2)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values


def read(cache: CacheStack, qkv, pieces, window: int | None):
    outputs, start = [], 0
    for size in pieces:
        queries, keys, values = (each[:, :, start : start + size] for each in qkv)
        held_keys, held_values, layout = cache.layers[0].append(keys, values)
        first = layout.start_position
        assert first + held_keys.shape[2] == start + size
        outputs.append(attend(queries, held_keys, held_values, start, first, window))
        cache.extend(torch.full((B, size), size))
        start += size
        assert cache.length == start
    return torch.cat(outputs, dim=2)


def draw_qkv(length: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, B, K, length, C)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64))


def cut(length: int, size: int) -> list[int]:
    return [size] * (length // size) + ([length % size] if length % size else [])


@pytest.mark.parametrize("window", [None, 1, 2, 5, 8])
@pytest.mark.parametrize("pieces_of", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "settings", [FullCacheSettings(room=1), FullCacheSettings(), WindowCacheSettings()]
)
def test_pieces_equal_the_whole_at_every_length_around_the_window(window, pieces_of, settings):
    w = window or 8
    for length in sorted({max(w - 1, 1), w, w + 1, 3 * w, 3 * w + 1}):
        qkv = draw_qkv(length)
        expected = attend(*qkv, 0, 0, window)
        got = read(settings.build([CacheSpec(window)]), qkv, cut(length, pieces_of), window)
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_window_bounds_what_a_token_sees(size):
    qkv = draw_qkv(20)
    got = read(WindowCacheSettings(size=size).build([CacheSpec(None)]), qkv, [1] * 20, None)
    torch.testing.assert_close(got, attend(*qkv, 0, 0, size), atol=1e-12, rtol=0)


def test_a_window_larger_than_the_layers_own_keeps_only_its_own():
    small = WindowCacheSettings(size=50).build([CacheSpec(4)])
    read(small, draw_qkv(30), [1] * 30, 4)
    assert small.nbytes == 2 * B * K * 6 * C * 8


def test_window_memory_does_not_grow_and_full_memory_does():
    full, windowed = (
        FullCacheSettings(room=4).build([CacheSpec(None)]),
        WindowCacheSettings().build([CacheSpec(5)]),
    )
    sizes = []
    for cache in (full, windowed):
        assert cache.nbytes == 0
        read(cache, draw_qkv(10), [1] * 10, 5)
        ten = cache.nbytes
        for start in range(10, 40):
            keys = torch.zeros(B, K, 1, C, dtype=torch.float64)
            cache.layers[0].append(keys, keys)
            del start
        sizes.append((ten, cache.nbytes))
    assert sizes[0] == (2 * B * K * 16 * C * 8, 2 * B * K * 64 * C * 8)
    assert sizes[1][0] == sizes[1][1] == 2 * B * K * 8 * C * 8


def test_a_wide_window_has_an_eighth_of_spare_room():
    qkv, cache = draw_qkv(700), WindowCacheSettings().build([CacheSpec(300)])
    got = read(cache, qkv, cut(700, 9), 300)
    torch.testing.assert_close(got, attend(*qkv, 0, 0, 300), atol=1e-12, rtol=0)
    assert cache.nbytes == 2 * B * K * (299 + 37) * C * 8


def test_the_full_cache_grows_by_doubling():
    cache = FullCacheSettings(room=2).build([CacheSpec(None)])
    places = set()
    for step in range(33):
        keys = torch.full((B, K, 1, C), float(step))
        held, _, _ = cache.layers[0].append(keys, keys)
        places.add(held.untyped_storage().data_ptr())
        assert held[0, 0, :, 0].tolist() == list(range(step + 1))
    assert cache.nbytes == 2 * B * K * 64 * C * 4


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("sinks", [1, 3, 7])
@pytest.mark.parametrize("pieces_of", [1, 3, 100])
def test_sinks_stand_before_the_run_or_the_text_is_whole(window, sinks, pieces_of):
    cache = WindowCacheSettings().build([CacheSpec(window, sinks)])
    _, keys, values = draw_qkv(21)
    values, start = values[:, :1, :, :3], 0  # other heads and channels than the keys
    for size in cut(21, pieces_of):
        start += size
        new = slice(start - size, start)
        held_keys, held_values, layout = cache.layers[0].append(keys[:, :, new], values[:, :, new])
        first = layout.start_position
        assert first == 0 or first > sinks
        lead = list(range(sinks)) if first else []
        places = [*lead, *range(first, start)]
        assert torch.equal(held_keys, keys[:, :, places])
        assert torch.equal(held_values, values[:, :, places])
        assert set(range(max(start - size - window + 1, 0), start)) <= set(places)
        assert len(places) <= max(sinks, 0) + window - 1 + size
    room = max(2 * (window - 1), 1) + sinks
    assert cache.nbytes == B * (K * C + 3) * room * 8


@pytest.mark.parametrize("fed", [1, 2, 9])  # none of the sinks missing, some, not one
def test_select_reorders_the_sinks_with_the_rest(fed):
    layer = WindowCacheSettings().build([CacheSpec(3, 2)]).layers[0]
    _, keys, values = draw_qkv(14)
    values, swapped = values[:, :1, :, :3], [1, 0, 1]
    layer.append(keys[:, :, :fed], values[:, :, :fed])
    layer.select(torch.tensor(swapped))
    keys, values = keys[swapped], values[swapped]
    for at in range(fed, 14):
        held, held_values, layout = layer.append(keys[:, :, at : at + 1], values[:, :, at : at + 1])
        first = layout.start_position
    places = [0, 1, 11, 12, 13]
    assert first == 11
    assert torch.equal(held, keys[:, :, places])
    assert torch.equal(held_values, values[:, :, places])


def test_a_size_caps_windows_and_keeps_sinks_and_summaries():
    cache = WindowCacheSettings(size=3).build(
        [CacheSpec(9, 2), CacheSpec(None, 2), CacheSpec(summaries=True)]
    )
    _, keys, values = draw_qkv(12)
    places = []
    for at in range(12):
        new = (keys[:, :, at : at + 1], values[:, :, at : at + 1])
        places = [layer.append(*new) for layer in cache.layers]
    assert [(held.shape[2], layout.start_position) for held, _, layout in places] == [
        (5, 9),
        (5, 9),
        (12, 0),
    ]


@pytest.mark.parametrize("settings", [FullCacheSettings(room=2), WindowCacheSettings(size=2)])
def test_summaries_take_the_place_of_what_they_summarise(settings):
    cache = settings.build([CacheSpec(summaries=True)])
    layer = cache.layers[0]
    _, keys, values = draw_qkv(90)
    values = values[:, :1, :, :3]
    assert layer.summaries() is None
    for start in range(0, 90, 9):  # nine positions become two
        for at in range(start, start + 9):
            held, held_values, layout = layer.append(
                keys[:, :, at : at + 1], values[:, :, at : at + 1]
            )
        assert layout.start_position == start
        assert torch.equal(held, keys[:, :, start : start + 9])
        assert torch.equal(held_values, values[:, :, start : start + 9])
        layer.summarise(9, keys[:, :, start : start + 2], values[:, :, start : start + 2])
        assert torch.equal(held, keys[:, :, start : start + 9])  # what was handed out stays
    places = [start + i for start in range(0, 90, 9) for i in range(2)]
    assert torch.equal(layer.summaries()[0], keys[:, :, places])
    assert torch.equal(layer.summaries()[1], values[:, :, places])
    assert cache.nbytes == B * (K * C + 3) * 32 * 8  # 20 summaries in room for 32, nothing else
    layer.append(keys[:, :, :5], values[:, :, :5])
    layer.summarise(3, keys[:, :, :1], values[:, :, :1])
    held, _, layout = layer.append(keys[:, :, 5:6], values[:, :, 5:6])
    first = layout.start_position
    assert (first, held.shape[2]) == (93, 3)
    assert torch.equal(held, keys[:, :, 3:6])
    cache.select(torch.tensor([1, 1, 0]))
    assert torch.equal(layer.summaries()[0][2], keys[0, :, [*places, 0]])
    assert torch.equal(layer.append(keys[[1, 1, 0], :, 6:7], values[[1, 1, 0], :, 6:7])[0][2],
                       keys[0, :, 3:7])  # fmt: skip


@pytest.mark.parametrize("settings", [FullCacheSettings(room=2), WindowCacheSettings(size=4)])
def test_select_keeps_and_repeats_rows(settings):
    cache = settings.build([CacheSpec(None)])
    qkv = draw_qkv(9)
    read(cache, [each[:, :, :6] for each in qkv], [6], None)
    cache.select(torch.tensor([1, 1, 0]))
    _, keys, values = (each[[1, 1, 0], :, 6:7] for each in qkv)
    held, _, layout = cache.layers[0].append(keys, values)
    first = layout.start_position
    assert torch.equal(held, qkv[1][[1, 1, 0], :, first:7])
    cache.extend(torch.tensor([[1], [2], [3]]))
    assert cache.recent_tokens(1).tolist() == [[1], [2], [3]]


def test_select_keeps_what_parts_carry_on():
    cache = FullCacheSettings().build([])
    cache.state["place"] = torch.tensor([[7], [8]])
    cache.select(torch.tensor([1, 1, 0]))
    assert cache.state["place"].tolist() == [[8], [8], [7]]


def test_recent_tokens_are_the_latest_and_survive_many_steps():
    cache = FullCacheSettings().build([])
    assert cache.recent_tokens(3) is None
    for step in range(100):
        cache.extend(torch.tensor([[step], [-step]]))
    assert cache.recent_tokens(3).tolist() == [[97, 98, 99], [-97, -98, -99]]
    cache.extend(torch.arange(200).expand(2, -1))
    assert cache.recent_tokens(2).tolist() == [[198, 199], [198, 199]]
    assert cache.length == 300


def test_no_cache_keeps_nothing_and_the_union_is_complete():
    assert NoCacheSettings().build([CacheSpec(None)]) is None
    assert set(members(CacheSettings)) == {
        FullCacheSettings, QuantisedCacheSettings, PrunedCacheSettings, PagedCacheSettings,
        SpilledCacheSettings, WindowCacheSettings, NoCacheSettings,
    }  # fmt: skip


FILLER, QUESTION = 10, 11
LENGTH = 288
EVERYWHERE = dict.fromkeys((0, 5, 96, 150, 224, LENGTH - 1), True)
KEEPING = {
    "full": ({"kind": "full"}, EVERYWHERE),
    "paged": ({"kind": "paged"}, EVERYWHERE),
    "spilled": ({"kind": "spilled"}, EVERYWHERE),
    "int8": ({"kind": "quantised"}, EVERYWHERE),
    "int4": ({"kind": "quantised", "bits": 4}, EVERYWHERE),
    "window": (
        {"kind": "window", "size": 64},
        {0: False, LENGTH - 64: False, LENGTH - 63: True, LENGTH - 1: True},
    ),
    "pruned": (
        {"kind": "pruned", "size": 64, "heavy": 0},
        {0: True, 3: True, 4: False, 150: False, LENGTH - 59: True, LENGTH - 1: True},
    ),
}


@functools.cache
def looker():
    """Return a decoder of one layer whose question attends to digits and repeats what it finds."""
    values = {
        "layers": 1, "width": 32, "context": 512, "vocab_size": 12, "position": {"kind": "none"},
        "attention": {"kind": "grouped", "heads": 1},
    }  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build().eval()
    attention = decoder.blocks[0].attention
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        for each in (decoder.embedding.weight, decoder.head.weight):
            each.copy_(torch.eye(12, 32))
        attention.key[31, :FILLER] = 1
        attention.query[31, QUESTION] = 30
        attention.value.copy_(torch.eye(32))
        attention.output.copy_(torch.eye(32))
    return decoder


@pytest.mark.parametrize("kind", KEEPING)
def test_a_digit_is_found_where_its_position_is_kept(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path))
    cache, expected = KEEPING[kind]
    hidden = torch.tensor(list(expected))
    text = torch.full((len(hidden), LENGTH), FILLER)
    text[torch.arange(len(hidden)), hidden] = hidden % 10
    session = DecodeSession(looker(), SamplingSettings.model_validate({"cache": cache}).cache)
    for piece in text.split(32, 1):
        session.read(piece)
    answers = session.read([[QUESTION]] * len(hidden)).argmax(-1)
    found = dict(zip(expected, (answers == hidden % 10).tolist(), strict=True))
    assert found == expected
