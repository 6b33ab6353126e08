"""Text files in pieces: every kind of compression, and each way not to be text."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pyarrow
import pytest

from coterie.data import text
from coterie.data.text import read_text
from coterie.foundation.errors import DataError

TEXT = "Zeile eins\nLine twö → 🙂\n\nend"


def write_zstandard(path, content):
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(content)


def test_plain_and_compressed_files_give_the_same_text(tmp_path):
    content = TEXT.encode()
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(content))
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(content))
    write_zstandard(tmp_path / "a.txt.zst", content)
    for path in tmp_path.iterdir():
        assert "".join(read_text(path)) == TEXT, path


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text, "PIECE", size)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    pieces = list(read_text(tmp_path / "a.txt"))
    assert "".join(pieces) == TEXT  # no byte order mark, line ends made equal
    assert max(map(len, pieces)) <= size + 1


@pytest.mark.parametrize("size", [2, 5, 1 << 20])
def test_a_wrong_byte_is_named_with_its_place(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text, "PIECE", size)
    path = tmp_path / "latin.txt"
    path.write_bytes("é\nok\ncaf".encode() + b"\xe9 x")
    with pytest.raises(DataError, match=r"byte 0xE9 at position 9 \(line 3\)") as caught:
        list(read_text(path))
    assert "iconv" in caught.value.hint


def test_a_file_that_ends_inside_a_character_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\n" + "→".encode()[:2])
    with pytest.raises(DataError, match=r"position 4 \(line 2\)"):
        list(read_text(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\x7fELF\0\0", "binary file"),
        ("text".encode("utf-16"), "UTF-16"),
        ("text".encode("utf-32"), "UTF-32"),
    ],
)
def test_what_is_not_text_is_refused(tmp_path, content, why):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=why):
        list(read_text(tmp_path / "a.txt"))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_damaged_compressed_files_are_refused(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    if ending == ".zst":
        write_zstandard(path, TEXT.encode() * 99)
    else:
        packer = {".gz": gzip, ".xz": lzma, ".bz2": bz2}[ending]
        path.write_bytes(packer.compress(TEXT.encode() * 99))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged"):
        list(read_text(path))
    path.write_bytes(b"no such format")
    with pytest.raises(DataError, match="damaged"):
        list(read_text(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
        list(read_text(tmp_path / "gone.txt"))


@pytest.mark.parametrize("size", [1, 4, 5, 1 << 22])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_is_one_only_at_the_beginning(tmp_path, monkeypatch, mark, size):
    monkeypatch.setattr(text, "PIECE", size)
    file = tmp_path / "t.txt"
    file.write_text(mark + "abcd\ufeffü\r\nz", newline="")
    assert "".join(read_text(file)) == "abcd\ufeffü\nz"
