"""A model takes tensors over: no copy where none is needed, and nothing that changes the file."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from coterie.checkpoint.tensor_file import ALIGNMENT, read_tensors, save_tensors
from coterie.checkpoint.tensors import adopt_tensors, is_finite, load_tensors, model_tensors


def test_mapped_weights_are_the_models_own_and_the_file_stays(decoder, tmp_path):
    path, source, model = tmp_path / "m.safetensors", decoder(16), decoder(16)
    save_tensors(model_tensors(source), path)
    before, tensors = path.read_bytes(), read_tensors(path)
    tied = model.embedding.weight
    adopt_tensors(model, tensors, path)
    assert model.embedding.weight is tied
    assert tied.data_ptr() == tensors["embedding.weight"].data_ptr()
    assert tied.requires_grad
    for name, tensor in model_tensors(model).items():
        assert torch.equal(tensor, model_tensors(source)[name]), name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert path.read_bytes() == before


def test_others_are_copied_to_where_torch_would_put_them(decoder, tmp_path):
    path, source = tmp_path / "m.safetensors", decoder(8)
    halves = {name: each.detach().half() for name, each in model_tensors(source).items()}
    for given in (halves, {name: each.detach() for name, each in model_tensors(source).items()}):
        save_file({name: each.clone() for name, each in given.items()}, path, {"odd": "x" * 8})
        made, copied = decoder(8), decoder(8)
        adopt_tensors(made, read_tensors(path), path)
        load_tensors(copied, given, path)
        own, wanted = model_tensors(made), model_tensors(copied)
        for name, tensor in own.items():
            assert tensor.dtype == wanted[name].dtype
            assert torch.equal(tensor, wanted[name])
            assert tensor.data_ptr() % ALIGNMENT == 0


def test_finite():
    large = torch.full((4,), 3e38)
    assert is_finite(large)
    assert is_finite(torch.arange(3))
    for odd in (torch.inf, -torch.inf, torch.nan):
        assert not is_finite(torch.tensor([1.0, odd]))
    assert not is_finite(torch.tensor([torch.inf, -torch.inf]))
