"""Tensors that cannot lie where a file says, or cannot be read, are refused."""

from __future__ import annotations

import struct
import sys

import pytest
import torch

from coterie.exchange.gguf import import_file
from coterie.foundation.errors import MissingExtraError
from tests.exchange.gguf.conftest import VALUES, refusal, tensors, write_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def test_the_small_file_is_sound(write):
    assert import_file(write()).decoder.settings.layers == 1


def test_values_that_are_no_numbers(write):
    bad = torch.ones(16)
    bad[3] = torch.nan
    assert "holds values that are no numbers" in refusal(
        write(added={"output_norm.weight": bad.numpy()})
    )


def test_unknown_and_unopened_types(write):
    path = write()
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    content[at : at + 4] = struct.pack("<I", 4242)
    path.write_bytes(content)
    assert "of the unknown type 4242" in refusal(path)
    content[at : at + 4] = struct.pack("<I", 24)  # whole numbers of 8 bits
    path.write_bytes(content)
    assert "of the type I8, which cannot be opened" in refusal(path)


def test_pieces_of_a_split_model(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", VALUES, tensors(), tokenizer={"split.count": 3})
    assert "one of 3 pieces" in refusal(path)


def test_without_the_library_the_line_to_run_is_said(write, monkeypatch):
    path = write()
    for name in ("gguf", "gguf.quants"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "coterie\[gguf\]"'):
        import_file(path)


@pytest.mark.parametrize("value", [0, 3, 1 << 31, -32, "32", True, 32.0])
def test_alignments_that_cannot_be(value, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", VALUES, tensors())
    content = bytearray(path.read_bytes())
    kind = {int: 5 if isinstance(value, int) and value < 0 else 4, str: 8, bool: 7, float: 6}
    raw = {8: text(str(value)), 7: b"\1", 6: struct.pack("<f", 32.0)}
    number = kind[type(value)]
    packed = raw.get(number) or struct.pack("<i" if number == 5 else "<I", int(value))
    content[16:24] = struct.pack("<Q", struct.unpack("<Q", content[16:24])[0] + 1)
    content[24:24] = text("general.alignment") + struct.pack("<I", number) + packed
    path.write_bytes(content)
    assert "general.alignment" in refusal(path)


def test_tensors_that_share_a_place_or_begin_between_are_refused(write):
    path = write()
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8 + 4
    own = struct.unpack("<Q", content[at : at + 8])[0]
    content[at : at + 8] = struct.pack("<Q", 0 if own else 64)
    path.write_bytes(content)
    assert "overlap" in refusal(path)
    content[at : at + 8] = struct.pack("<Q", own + 4)
    path.write_bytes(content)
    assert "no multiple of 32" in refusal(path)
