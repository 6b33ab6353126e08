"""The quantised cache: what is kept as it is, what as codes, and that codes never change."""

import pytest
import torch
from pydantic import ValidationError

from coterie.generate.cache import QuantisedCacheSettings, WindowLayerCache
from coterie.generate.cache.summaries import SummaryLayerCache
from coterie.generate.session import cache_specs
from coterie.model import CacheSpec, DecoderSettings
from coterie.model.context import ForwardContext
from coterie.model.geometry import FAR, place_rows

G, RECENT, SINKS = 4, 5, 2
B, K, C = 2, 2, 6


def layer(rollback=0, **changes):
    values = {"bits": 8, "group": G, "recent": RECENT, "sinks": SINKS} | changes
    return QuantisedCacheSettings(**values).build([CacheSpec()], rollback).layers[0]


def draw(length, batch=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(batch, K, length, C, generator=generator)
    return keys, torch.randn(batch, 1, length, 3, generator=generator)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("piece", [1, 3, 7])
def test_sinks_and_recent_positions_stay_and_the_rest_is_within_half_a_step(bits, piece):
    keys, values = draw(50)
    cache = layer(bits=bits)
    for start in range(0, 50, piece):
        part = slice(start, start + piece)
        held_keys, held_values, layout = cache.append(keys[:, :, part], values[:, :, part])
        stop = min(start + piece, 50)
        assert held_keys.shape[2] == stop
        assert (layout.num_sinks, layout.start_position) == (0, 0)
        for held, given in ((held_keys, keys), (held_values, values)):
            given = given[:, :, :stop]
            recent = slice(max(start - RECENT, 0), None)  # what the piece before left, and itself
            assert torch.equal(held[:, :, recent], given[:, :, recent])
            assert torch.equal(held[:, :, :SINKS], given[:, :, :SINKS])
        step = (keys.amax() - keys.amin()) / ((1 << bits) - 1)
        assert (held_keys - keys[:, :, :stop]).abs().max() <= step / 2 * 1.01
    assert not torch.equal(held_keys, keys)


def test_a_block_is_quantised_once_and_never_again():
    keys, values = draw(320)
    cache, known = layer(), None
    for at in range(320):
        held = cache.append(keys[:, :, at : at + 1], values[:, :, at : at + 1])[:2]
        done = max(at - RECENT, 0) // G * G  # of what was read before
        if known is not None:
            for now, then in zip(held, known, strict=True):
                assert torch.equal(now[:, :, : then.shape[2]], then)
        known = [each[:, :, :done].clone() for each in held]
    assert known[0].shape[2] == 312


def test_keys_are_quantised_per_channel_and_values_per_token():
    keys, values = draw(2 * G + RECENT)
    keys[..., 1] *= 1000
    values[:, :, 3] *= 1000
    cache = layer(sinks=0)
    cache.append(keys, values)
    held_keys, held_values, _ = cache.append(keys[:, :, :1], values[:, :, :1])
    wrong = (held_keys[:, :, :-1] - keys).abs()
    assert wrong[..., [0, 2, 3, 4, 5]].max() < 0.02
    wrong = (held_values[:, :, :-1] - values).abs()
    others = [at for at in range(2 * G) if at != 3]
    assert wrong[:, :, others].max() < 0.02
    assert wrong[:, :, 3].max() > 0.02


@pytest.mark.parametrize(("bits", "share"), [(8, 0.30), (4, 0.18)])
def test_bytes_of_a_token(bits, share):
    cache = QuantisedCacheSettings(bits=bits).build([CacheSpec()]).layers[0]
    wide = torch.randn(1, 2, 2048 + 32, 64)
    cache.append(wide, wide)
    assert cache.nbytes < share * 2 * wide.nbytes


def test_rows_of_unequal_length_hold_what_each_holds_alone():
    pieces = [(3, 9, 1, 1), (8, 2, 11, 0), (1, 1, 1, 30), (0, 1, 2, 1), (5, 5, 5, 5)]
    keys, values = draw(60, batch=4)
    together, alone = layer(), [layer() for _ in range(4)]
    past = [0] * 4
    for lengths in pieces:
        number = max(lengths)
        rows = place_rows(tuple(past), lengths, number, keys.device)
        at = torch.tensor(past)[:, None] + torch.arange(number)
        new = [
            each.gather(
                2, at.clamp(max=59)[:, None, :, None].expand(-1, each.shape[1], -1, each.shape[3])
            )
            for each in (keys, values)
        ]
        held_keys, held_values, layout = together.append(*new, rows)
        assert held_keys.isfinite().all()
        for row, length in enumerate(lengths):
            own = slice(past[row], past[row] + length)
            expected = alone[row].append(keys[row : row + 1, :, own], values[row : row + 1, :, own])
            past[row] += length
            places = layout.positions[row]
            assert places[places < FAR].tolist() == list(range(past[row]))
            got = held_keys[row][:, places < FAR], held_values[row][:, places < FAR]
            for one, two in zip(got, expected, strict=False):
                assert torch.equal(one, two[0])


def test_rows_are_chosen_joined_and_taken_back():
    keys, values = draw(40, batch=3)
    one, two = layer(rollback=8), layer(rollback=8)
    one.append(keys[:2, :, :33], values[:2, :, :33])
    two.append(keys[2:, :, :9], values[2:, :, :9])
    one.join(two)
    one.select(torch.tensor([2, 0, 2]))
    one.truncate((8, 25, 9))
    rows = place_rows((8, 25, 9), (1, 1, 1), 1, keys.device)
    held, held_values, layout = one.append(keys[:, :, 39:], values[:, :, 39:], rows)
    for row, (source, length) in enumerate([(2, 8), (0, 25), (2, 9)]):
        real = layout.positions[row] < FAR
        assert layout.positions[row][real].tolist() == list(range(length + 1))
        expected = torch.cat((keys[source, :, :length], keys[row, :, 39:]), 1)
        torch.testing.assert_close(held[row][:, real], expected, atol=0.02, rtol=0)
        assert torch.equal(
            held_values[row][:, real][:, -2:-1], values[source, :, length - 1 : length]
        )
    with pytest.raises(ValueError, match="larger rollback"):
        one.truncate((8, 3, 9))


@torch.inference_mode()
def test_logits_are_near_those_without_a_cache():
    """With groups of two positions a key is the lowest or the highest of its group: near exact."""
    attentions = {
        "grouped": {"kind": "grouped", "heads": 4, "kv_heads": 2},
        "mla": {"kind": "mla", "heads": 4, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4},
    }
    for attention in attentions.values():
        decoder = DecoderSettings.model_validate({
            "layers": 2, "width": 16, "context": 64, "vocab_size": 11, "attention": attention,
            "initial": {"std": 0.3, "outputs": "plain"},
        }).build(torch.Generator().manual_seed(0)).eval()  # fmt: skip
        tokens = torch.randint(0, 11, (3, 40), generator=torch.Generator().manual_seed(1))
        cache = QuantisedCacheSettings(group=2, recent=1, sinks=1).build(cache_specs(decoder))
        done, found = [0, 0, 0], [[], [], []]
        for lengths in ((7, 7, 7), (1, 9, 3), (9, 1, 2), (23, 23, 28)):
            piece = torch.zeros(3, max(lengths), dtype=torch.long)
            for row, length in enumerate(lengths):
                piece[row, :length] = tokens[row, done[row] : done[row] + length]
            logits = decoder(piece, context=ForwardContext(cache=cache, lengths=lengths)).logits
            for row, length in enumerate(lengths):
                found[row].append(logits[row, :length])
                done[row] += length
        expected = decoder(tokens).logits
        torch.testing.assert_close(
            torch.stack([torch.cat(each) for each in found]), expected, atol=0.05, rtol=0
        )
        assert not torch.equal(torch.stack([torch.cat(each) for each in found]), expected)


def test_layers_that_need_less_keep_it_as_it_is():
    specs = [CacheSpec(window=9, sinks=2), CacheSpec(summaries=True, run=4)]
    kinds = [type(each) for each in QuantisedCacheSettings().build(specs).layers]
    assert kinds == [WindowLayerCache, SummaryLayerCache]


def test_sinks_must_fit_into_the_first_group():
    with pytest.raises(ValidationError, match="sinks=9 must not exceed group=8"):
        QuantisedCacheSettings(group=8, sinks=9)
