"""A header is checked before it is believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.exchange.gguf import export_file
from coterie.exchange.gguf.header import read_header
from coterie.exchange.imported import ExchangeError
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import parse_tokenizer
from tests.exchange.gguf.conftest import refusal


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A whole file with a tokenizer."""
    settings = {"layers": 1, "width": 32, "context": 16, "vocab_size": 257}
    decoder = DecoderSettings.model_validate(settings).build()
    path = tmp_path_factory.mktemp("sound") / "model.gguf"
    return export_file(decoder, parse_tokenizer("bytes").build(), path).read_bytes()


def test_a_missing_file_and_other_files(tmp_path):
    assert "There is no file" in refusal(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("Shall I compare thee")
    assert "does not begin with the letters GGUF" in refusal(tmp_path / "text.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    assert "no GGUF file" in refusal(tmp_path / "empty.gguf")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
    assert "pickle" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GGUF" + struct.pack("<I", 1), "of version 1; versions 2 and 3"),
        (b"GGUF" + struct.pack("<I", 99), "of version 99"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"FUGG" + struct.pack(">I", 3), "big-endian"),
    ],
)
def test_other_versions_and_byte_orders(start, words, write):
    path = write()
    path.write_bytes(start + path.read_bytes()[8:])
    assert words in refusal(path)


def test_a_file_cut_anywhere_is_refused(sound, tmp_path):
    path = tmp_path / "cut.gguf"
    for share in (9, 24, 100, 1000, 3000, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:share])
        words = refusal(path)
        assert "damaged" in words or "cut off" in words


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_garbled_header_never_does_more_than_be_refused(sound, tmp_path_factory, data):
    """Whatever the lengths say, reading ends soon and without filling the memory."""
    path = tmp_path_factory.mktemp("garbled") / "model.gguf"
    content = bytearray(sound)
    for at in data.draw(st.lists(st.integers(8, 6000), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        header = read_header(path)
    except ExchangeError:
        return
    assert header.end <= len(sound)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*values: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    said = len(values) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, said) + b"".join(values)


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return text("x") + struct.pack("<IIQ", 9, kind, count) + items


DEEP = struct.pack("<IQ", 9, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(text("x") + struct.pack("<I", 9) + DEEP * 5 + struct.pack("<IQ", 4, 0)),
         "arrays in arrays"),
        (header(text("x") + struct.pack("<I", 9) + DEEP * 100_000), "arrays in arrays"),
        (header(array(4, 1 << 40)), "claims to hold 1,099,511,627,776 items"),
        (header(array(8, 1 << 62)), "claims to hold"),
        (header(struct.pack("<Q", 1 << 63) + bytes(16)), "claims to hold"),
        (header(count=1 << 60), "claims to hold 1,152,921,504,606,846,976 values"),
        (header(tensors=1 << 60), "claims to hold 1,152,921,504,606,846,976 tensors"),
        (header(array(4, 3)), "ends where 3 numbers should follow"),
        (header(text("a") + struct.pack("<I", 99)), "unknown kind 99"),
        (header(*[text("a") + struct.pack("<II", 4, 1)] * 2), "a is there twice"),
    ],
)  # fmt: skip
def test_headers_that_claim_too_much_are_refused_before_anything_is_made(content, words, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert words in refusal(path)
