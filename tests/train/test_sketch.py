"""Tensors without memory have the shapes, types and sharing that real ones have."""

import torch

from coterie.train.sketch import Shape
from coterie.train.step import read_scalars


def shape(*sizes, dtype=torch.float32):
    return Shape(torch.empty(sizes, dtype=dtype, device="meta"), torch.device("cpu"))


def test_operators_return_shapes_and_deal_out_what_numbers_would_decide():
    x = shape(6, 4)
    chosen = x.softmax(-1).topk(2)
    assert isinstance(chosen.values, Shape)
    assert chosen.indices.tolist() == [[0, 1], [2, 3]] * 3
    assert torch.bincount(chosen.indices.flatten()).tolist() == [3, 3, 3, 3]
    assert x.argmax(-1).tolist() == [0, 1, 2, 3, 0, 1]
    assert float(x.sum()) == 1.0


def test_what_comes_of_whole_numbers_alone_is_real():
    rows = torch.arange(4)
    mask = torch.zeros(4, 4).masked_fill(rows[:, None] < rows, -torch.inf)
    assert not isinstance(mask, Shape)
    assert isinstance(shape(2, 4, 4) + mask, Shape)


def test_changes_in_place_and_views_share_memory():
    x = shape(8, 8)
    assert x.mul_(2) is x
    assert x[1:].meta.untyped_storage()._cdata == x.meta.untyped_storage()._cdata
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16


def test_a_shape_knows_which_gpu_it_is_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    shape = Shape(torch.empty(2, device="meta"), torch.device("cuda"))
    assert shape.device == torch.device("cuda", 1), "autograd has no queue for one without number"


def test_what_a_step_reads_of_a_gpu_is_told_for_shapes_too(monkeypatch):
    class Event:
        def record(self):
            pass

        def synchronize(self):
            pass

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    loss = Shape(torch.empty((), device="meta"), torch.device("cuda"))
    assert read_scalars(loss, 3.0) == [1.0, 3.0]
