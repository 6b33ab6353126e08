"""The pruned cache: which positions stay, where they then stand, and what that is equal to."""

import pytest
import torch
from pydantic import ValidationError

from coterie.foundation.errors import UserError
from coterie.generate.cache import PrunedCacheSettings, WindowLayerCache
from coterie.generate.cache.summaries import SummaryLayerCache
from coterie.generate.session import cache_specs
from coterie.model import CacheSpec, DecoderSettings
from coterie.model.context import ForwardContext
from coterie.model.geometry import FAR, place_rows

B, K = 2, 2


def layer(size=8, heavy=0.0, sinks=2, rollback=0):
    settings = PrunedCacheSettings(size=size, heavy=heavy, sinks=sinks)
    return settings.build([CacheSpec()], rollback).layers[0]


def numbers(start, stop, batch=B):
    """Keys whose only channel is their position in the text."""
    at = torch.arange(start, stop, dtype=torch.float32)
    return at[None, None, :, None].expand(batch, K, -1, 1)


def held(keys):
    return keys[0, 0, :, 0].int().tolist()


def test_the_first_and_the_latest_stay_right_before_the_new_ones():
    cache = layer()
    for at in range(30):
        new = numbers(at, at + 1)
        keys, values, layout = cache.append(new, new[:, :1])
        places = held(keys)
        assert places == held(values)
        assert places[:2] == [0, 1][: at + 1]
        assert places[2:] == list(range(at + 3 - len(places), at + 1))
        assert len(places) == min(at + 1, 9)  # eight, and the new one
        assert layout.start_position + len(places) == at + 1


def test_heavy_hitters_stay_between_the_first_and_the_latest():
    cache = layer(size=8, heavy=0.5, sinks=2)  # three heavy ones, three latest
    favourites = {5: 0.9, 11: 0.8, 12: 0.7, 20: 0.01}
    for at in range(40):
        keys, _, _ = cache.append(numbers(at, at + 1), numbers(at, at + 1))
        drawn = [favourites.get(each, 0.001) for each in held(keys)]
        cache.observe(torch.tensor(drawn).expand(B, -1))
    assert held(keys) == [0, 1, 5, 11, 12, 36, 37, 38, 39]


def test_a_prompt_is_seen_whole_and_then_cut():
    cache = layer()
    keys, _, layout = cache.append(numbers(0, 100), numbers(0, 100))
    assert held(keys) == list(range(100))
    assert layout.start_position == 0
    keys, _, layout = cache.append(numbers(100, 101), numbers(100, 101))
    assert held(keys) == [0, 1, *range(94, 101)]
    assert layout.start_position == 92
    assert cache.nbytes == 2 * B * K * 8 * 4  # cut again at once


def test_memory_does_not_grow_over_20_000_positions():
    cache, most = layer(size=64, heavy=0.5), 0
    for start in range(0, 20_000, 100):
        keys, _, _ = cache.append(numbers(start, start + 100), numbers(start, start + 100))
        cache.observe(torch.rand(B, keys.shape[2]))
        most = max(most, cache.nbytes)
    assert most <= 2 * B * K * 72 * 4 + B * 72 * 4


def tiny(attention, **changes):
    values = {
        "layers": 1, "width": 16, "context": 64, "vocab_size": 11, "attention": attention,
        "initial": {"std": 0.5, "outputs": "plain"},
    } | changes  # fmt: skip
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0))
    return decoder.double().eval()


ATTENTIONS = {
    "grouped": {"kind": "grouped", "heads": 4, "kv_heads": 2},
    "mla": {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4},
    "mla per head": {
        "kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4,
        "rotary_key": "per_head",
    },
}  # fmt: skip
YARN = {"kind": "rotary", "scaling": {"kind": "yarn", "factor": 4.0, "original_context": 16}}


@pytest.mark.parametrize(
    ("name", "position"),
    [("grouped", "rotary"), ("grouped", YARN), ("mla", "rotary"), ("mla per head", YARN)],
)
@torch.inference_mode()
def test_what_stays_reads_as_a_text_of_its_own(name, position):
    """One layer, so that keys depend on their own tokens alone: the text is what was kept."""
    decoder = tiny(ATTENTIONS[name], position=position)
    tokens = torch.randint(0, 11, (2, 29), generator=torch.Generator().manual_seed(1))
    cache = PrunedCacheSettings(size=8, heavy=0, sinks=3).build(cache_specs(decoder))
    for at in range(29):
        new = tokens[:, at : at + 1]
        got = decoder(new, context=ForwardContext(cache=cache)).logits[:, -1]
        kept = list(range(at + 1)) if at < 8 else [0, 1, 2, *range(at - 5, at + 1)]
        if at % 7 == 0:
            expected = decoder(tokens[:, kept]).logits[:, -1]
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
@torch.inference_mode()
def test_attention_tells_what_it_looks_at(attention):
    decoder = tiny(attention)
    tokens = torch.randint(0, 11, (2, 20), generator=torch.Generator().manual_seed(1))
    cache = PrunedCacheSettings(size=64, heavy=0.5).build(cache_specs(decoder))
    pieces = ((12, 12), (1, 4), (5, 2))
    done = [0, 0]
    for lengths in pieces:
        piece = torch.zeros(2, max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            piece[row, :length] = tokens[row, done[row] : done[row] + length]
            done[row] += length
        decoder(piece, context=ForwardContext(cache=cache, lengths=lengths))
    drawn = cache.layers[0]._drawn
    # Every query gives away exactly 1, and only to what it sees.
    torch.testing.assert_close(drawn.sum(1), torch.tensor([18.0, 18.0]))
    assert (drawn[:, :18] > 0).all()
    whole = PrunedCacheSettings(size=64, heavy=0.5).build(cache_specs(decoder))
    decoder(tokens[:, :18], context=ForwardContext(cache=whole))
    torch.testing.assert_close(drawn[:, :18], whole.layers[0]._drawn)


@pytest.mark.parametrize("heavy", [0.0, 0.5])
@torch.inference_mode()
def test_rows_that_differ_are_as_each_alone(heavy):
    decoder = tiny(ATTENTIONS["grouped"])
    tokens = torch.randint(0, 11, (3, 60), generator=torch.Generator().manual_seed(1))
    settings = PrunedCacheSettings(size=8, heavy=heavy, sinks=2)
    caches = [settings.build(cache_specs(decoder)) for _ in range(4)]
    done = [0, 0, 0]
    for lengths in [(3, 20, 1), (1, 1, 1), (9, 0, 2), *[(1, 1, 1)] * 4, (0, 4, 1), (2, 2, 2)]:
        piece = torch.zeros(3, max(lengths), dtype=torch.long)
        expected = []
        for row, length in enumerate(lengths):
            own = tokens[row : row + 1, done[row] : done[row] + length]
            piece[row, :length] = own
            done[row] += length
            alone = ForwardContext(cache=caches[row])
            expected.append(decoder(own, context=alone).logits[0] if length else None)
        got = decoder(piece, context=ForwardContext(cache=caches[3], lengths=lengths)).logits
        for row, length in enumerate(lengths):
            if length:
                torch.testing.assert_close(got[row, :length], expected[row], atol=1e-6, rtol=0)


def test_rows_are_chosen_joined_and_taken_back():
    one, two = layer(rollback=3, heavy=0.5), layer(rollback=3, heavy=0.5)
    for cache, batch, length in ((one, 2, 30), (two, 1, 5)):
        keys, _, _ = cache.append(numbers(0, length, batch), numbers(0, length, batch))
        cache.observe(torch.arange(float(keys.shape[2]), 0, -1).expand(batch, -1))
    one.join(two)
    one.select(torch.tensor([2, 1, 2]))
    one.truncate((3, 27, 5))
    rows = place_rows((3, 27, 5), (1, 1, 1), 1, torch.device("cpu"))
    keys, _, layout = one.append(numbers(90, 91, 3), numbers(90, 91, 3), rows)
    found = [keys[row, 0, layout.positions[row] < FAR, 0].int().tolist() for row in range(3)]
    assert found == [[0, 1, 2, 90], [0, 1, 2, 3, 4, 24, 25, 26, 90], [*range(5), 90]]
    ends = [layout.positions[row][layout.positions[row] < FAR][-1] for row in range(3)]
    assert ends == [3, 27, 5]
    with pytest.raises(ValueError, match="rollback larger than 3"):
        one.truncate((4, 20, 6))


def test_documents_in_one_row_are_refused():
    decoder = tiny(ATTENTIONS["grouped"]).eval()
    cache = PrunedCacheSettings().build(cache_specs(decoder))
    context = ForwardContext(cache=cache, documents=torch.tensor([[0, 0, 1]]))
    with pytest.raises(UserError, match="documents of a row apart"):
        decoder(torch.tensor([[1, 2, 3]]), context=context)


def test_layers_that_need_less_keep_what_they_need():
    specs = [CacheSpec(window=9, sinks=2), CacheSpec(summaries=True, run=4)]
    kinds = [type(each) for each in PrunedCacheSettings().build(specs).layers]
    assert kinds == [WindowLayerCache, SummaryLayerCache]


def test_the_latest_positions_need_room():
    with pytest.raises(ValidationError, match="size=4 must exceed sinks=4"):
        PrunedCacheSettings(size=4)
