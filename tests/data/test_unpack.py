"""Compressed files: read to the last byte or refused, never endless."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from contextlib import closing

import pyarrow
import pytest

from coterie.data import unpack
from coterie.data.unpack import open_bytes
from coterie.foundation.errors import DataError

ONE, TWO = b"first " * 500, b"second " * 500


def zstandard(content):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


def content_of(path, piece=1000, **options):
    with closing(open_bytes(path, **options)) as file:
        return b"".join(iter(lambda: file.read(piece), b""))


@pytest.fixture(params=PACKERS)
def packed(request, tmp_path):
    """A path with an ending of compression, and what compresses so."""
    return tmp_path / f"a.txt{request.param}", PACKERS[request.param]


def test_streams_that_follow_one_another_are_one_file(packed):
    path, pack = packed
    path.write_bytes(pack(ONE) + pack(TWO))
    assert content_of(path) == ONE + TWO
    assert content_of(path, piece=1 << 20) == ONE + TWO
    path.write_bytes(pack(b"") + pack(TWO))
    assert content_of(path) == TWO
    path.write_bytes(b"")
    assert content_of(path) == b""


@pytest.mark.parametrize("cut", [1, 4, 9, 15])
def test_a_later_stream_that_is_cut_off_is_damage(packed, cut):
    path, pack = packed
    path.write_bytes(pack(ONE) + pack(TWO)[:-cut])
    with pytest.raises(DataError, match="damaged and cannot be decompressed"):
        content_of(path)


@pytest.mark.parametrize("rubbish", [b"x", b"rubbish at the end", b"\0\0\0\1", b"\x1f\x8b\x08"])
def test_what_follows_the_last_stream_is_damage(packed, rubbish):
    path, pack = packed
    path.write_bytes(pack(ONE) + rubbish)
    with pytest.raises(DataError, match="damaged"):
        content_of(path)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_zeros_may_pad_where_the_format_allows_it(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    pack = PACKERS[ending]
    path.write_bytes(pack(ONE) + bytes(8) + pack(TWO) + bytes(4))
    assert content_of(path) == ONE + TWO


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])  # Zstandard's checksum is optional
def test_a_flipped_bit_is_damage(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    content = bytearray(PACKERS[ending](os.urandom(5000)))
    content[2000] ^= 16
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        content_of(path)


def test_files_may_be_packed_twice(tmp_path):
    (tmp_path / "a.txt.gz.BZ2").write_bytes(bz2.compress(gzip.compress(ONE)))
    assert content_of(tmp_path / "a.txt.gz.BZ2") == ONE
    (tmp_path / "a.zst.gz").write_bytes(gzip.compress(zstandard(ONE)))
    assert content_of(tmp_path / "a.zst.gz") == ONE
    (tmp_path / "b.zst.gz").write_bytes(gzip.compress(zstandard(ONE))[:-6])
    with pytest.raises(DataError, match="damaged"):
        content_of(tmp_path / "b.zst.gz")


def test_a_small_file_that_unpacks_without_end_is_refused(packed, monkeypatch):
    monkeypatch.setattr(unpack, "FREE_EXPANSION", 1 << 16)
    path, pack = packed
    path.write_bytes(pack(b"a" * 10_000_000))
    with pytest.raises(DataError, match=r"a\.txt.* unpacks to more than [\d,]+ bytes") as caught:
        content_of(path, max_expansion=100)
    assert "data.max_expansion=" in caught.value.hint
    assert len(content_of(path, max_expansion=1_000_000)) == 10_000_000
    path.write_bytes(pack(b"a" * (1 << 16)))  # small enough, however well it packs
    assert len(content_of(path, max_expansion=1)) == 1 << 16


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):  # and does not wait for a writer
        open_bytes(tmp_path / "pipe")
    with pytest.raises(DataError, match="gone cannot be read: No such file"):
        open_bytes(tmp_path / "gone")


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")

    def fail(size):
        raise OSError(5, "Input/output error")

    with closing(open_bytes(tmp_path / "a")) as file:
        monkeypatch.setattr(file, "_file", type("Broken", (), {"read": staticmethod(fail)}))
        with pytest.raises(DataError, match="a cannot be read: Input/output error"):
            file.read(10)
