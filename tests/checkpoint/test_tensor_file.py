"""Files that the format's own library reads, with tensors where torch would have put them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from coterie.checkpoint import tensor_file
from coterie.checkpoint.tensor_file import ALIGNMENT, read_tensors, save_tensors, tensor_names
from coterie.foundation.errors import CheckpointError

TENSORS = {
    "odd": torch.arange(5, dtype=torch.float64),
    "flag": torch.tensor([True, False, True]),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "short": torch.arange(3, dtype=torch.int8),
    "half": torch.arange(64, dtype=torch.bfloat16).view(8, 8),
    "turned": torch.arange(512.0).view(4, 8, 16).transpose(0, 2),
    "wide": torch.arange(48.0).view(3, 16),
}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(TENSORS, path, {"format": "pt"})
    assert set(tensor_names(path)) == set(TENSORS)
    for read in (load_file, read_tensors):
        found = read(path)
        assert all(torch.equal(found[name], each) for name, each in TENSORS.items())
        assert all(found[name].dtype == each.dtype for name, each in TENSORS.items())


def test_whole_cache_lines_begin_with_one(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(TENSORS, path)
    for name, tensor in read_tensors(path).items():
        if tensor.numel() and tensor.nbytes % ALIGNMENT == 0:
            assert tensor.data_ptr() % ALIGNMENT == 0, name
        assert tensor.data_ptr() % tensor.element_size() == 0, name


def test_where_files_cannot_be_mapped_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_tensors(TENSORS, path)

    def fail(path):
        raise OSError(19, "No such device")

    monkeypatch.setattr(tensor_file, "load_file", fail)
    assert torch.equal(read_tensors(path)["wide"], TENSORS["wide"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be read"):
        read_tensors(path)
