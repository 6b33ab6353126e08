"""Checksums begun ahead are those of the file as it is; a file changed in use is noticed."""

from __future__ import annotations

import os

import pytest

import coterie
from coterie.checkpoint import load_model
from coterie.checkpoint import model as loading
from coterie.checkpoint.hashing import begin, begin_ahead, digest_of
from coterie.checkpoint.layout import MODEL
from coterie.foundation.errors import CheckpointError
from coterie.foundation.files import sha256_file


def test_what_was_begun_is_not_used_for_another_content(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"one")
    begin(file)
    file.write_bytes(b"another")
    assert digest_of(file) == sha256_file(file)
    begin_ahead("no-such-run")
    begin_ahead(tmp_path)


def flip(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x40")


def test_a_file_changed_between_hashing_and_mapping(save, tmp_path, monkeypatch):
    path, read = save(tmp_path, 3), loading.read_tensors

    def meanwhile(file):
        flip(file)
        return read(file)

    monkeypatch.setattr(loading, "read_tensors", meanwhile)
    with pytest.raises(CheckpointError, match="changed while it was in use"):
        load_model(path)


@pytest.mark.parametrize("change", [flip, lambda file: os.truncate(file, 100)])
def test_mapped_weights_that_are_written_to_or_cut_short_are_refused(change, save, tmp_path):
    path = save(tmp_path, 3)
    begin_ahead(path)
    model = coterie.load(path)
    made = model.generate("a", max_tokens=2)
    change(path / MODEL)
    with pytest.raises(CheckpointError, match=f"{MODEL} was changed while it was in use"):
        model.generate("a", max_tokens=2)
    assert len(made.tokens) == 2


def test_mapped_weights_outlive_their_file(save, tmp_path):
    path = save(tmp_path, 3)
    model = coterie.load(path)
    made = model.generate("a", max_tokens=4)
    (path / MODEL).unlink()
    assert model.generate("a", max_tokens=4).tokens == made.tokens
    save(tmp_path, 3, weight=5.0)
    assert model.generate("a", max_tokens=4).tokens == made.tokens
