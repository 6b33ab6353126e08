"""The spilled cache: equal to the full one, in files without names, in memory that stays flat."""

import os

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.generate.cache import FullCacheSettings, SpilledCacheSettings, WindowLayerCache
from coterie.generate.cache.mapped import MappedBuffer
from coterie.model import CacheSpec
from coterie.model.geometry import place_rows

B, K, C = 2, 2, 64


def draw(length, batch=B):
    return torch.randn(batch, K, length, C, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_all_that_the_full_cache_does_bit_for_bit(tmp_path, dtype):
    settings = SpilledCacheSettings(room=8, recent=3, folder=str(tmp_path / "new"))
    both = settings, FullCacheSettings(room=8)
    spilled, full = (each.build([CacheSpec()] * 2).layers for each in both)

    def same(new, rows=None):
        for one, two in zip(spilled, full, strict=True):
            got, expected = one.append(new, new[:, :1], rows), two.append(new, new[:, :1], rows)
            assert torch.equal(got[0], expected[0])
            assert torch.equal(got[1], expected[1])

    for length in (1, 7, 1, 1, 40, 1):
        same(draw(length).to(dtype))
    for each in (*spilled, *full):
        each.select(torch.tensor([1, 0, 1]))
    same(draw(5, 3).to(dtype))
    for each in (*spilled, *full):
        each.truncate((50, 50, 50))
    rows = place_rows((50, 50, 50), (1, 3, 2), 3, torch.device("cpu"))
    same(draw(3, 3).to(dtype), rows)
    others = [each.build([CacheSpec()]).layers[0] for each in both]
    for other, layers in zip(others, (spilled, full), strict=True):
        other.append(draw(9, 1).to(dtype), draw(9, 1)[:, :1].to(dtype))
        layers[0].join(other)
    rows = place_rows((51, 53, 52, 9), (1, 0, 2, 2), 2, torch.device("cpu"))
    new = draw(2, 4).to(dtype)
    got, expected = (each[0].append(new, new[:, :1], rows) for each in (spilled, full))
    assert torch.equal(got[0], expected[0])
    assert list((tmp_path / "new").iterdir()) == []  # no file has a name


def resident_pages():
    """Return the kilobytes of mapped files that this process holds in memory."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile"))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux")
def test_older_positions_are_let_go_and_come_back(tmp_path):
    buffer = MappedBuffer(1 << 14, tmp_path)
    held = buffer.append(torch.ones(1, K, 1 << 14, C))  # 8 MiB
    before = resident_pages()
    buffer.drop(keep=1024)
    assert resident_pages() < before - 6 * 1024
    buffer.fetch(keep=1024)
    assert torch.equal(held, torch.ones_like(held))


def test_a_disk_without_room_is_an_error_and_no_crash(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="full"):
        MappedBuffer(4, tmp_path).append(draw(3))


def test_layers_with_a_window_keep_it_in_memory():
    layers = SpilledCacheSettings().build([CacheSpec(window=4), CacheSpec()]).layers
    assert isinstance(layers[0], WindowLayerCache)
